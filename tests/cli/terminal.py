"""Commands as a test types them, and the files that they read."""

import json

from tensorprog.__main__ import main

MLP = """
dim n
dim d = 3
param W1 : n x d
param W2 : n x n
param V : 1 x n
input xi : d
x1 = tanh(W1 @ xi)
h2 = W2 @ x1
f = V @ tanh(h2)
output f
loss squared
"""
PLAIN = """
dim n
matrix W : n x n ~ N(0, 1/n)
vector x : n
y = W @ x
q = mean(y * x)
output q
"""
LIMIT = """
dim n
dim m ~ 2*n
matrix W : m x n ~ N(0, 1/n)
vector x, v : n
y = W.T @ relu(W @ x)
q = mean(y * y)
t = mean(tanh(x)**2)
f = sum(v * y) / n^(1/2)
small = mean(x * v)
large = sum(x * x)
output q, t
"""
NETS = """
import tensorprog as tp

def net(depth: int = 2, wide=False):
    print("to be kept out of the answer")
    return tp.nets.mlp(depth=depth)

def number():
    return 3

def broken():
    return 1 / 0

def needs(depth: int):
    return tp.nets.mlp(depth=depth)

def leaves():
    raise SystemExit(5)
"""


def run(capsys, *words):
    """Return the exit status, standard output and standard error of a command."""
    status = main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


def answer(capsys, *words, status=0):
    """Return the JSON object that a command prints, and nothing else it may print."""
    got, out, err = run(capsys, *words, "--json")
    assert got == status, err
    assert out.count("\n") == 1
    return json.loads(out)
