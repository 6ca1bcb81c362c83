"""The exponent calculus on programs whose answers follow by hand."""

from fractions import Fraction

import pytest

from tensorprog.errors import NotCoveredError
from tensorprog.interp.scaling import Scaling
from tensorprog.program.text import parse

HEAD = """
dim n
dim m ~ 2*n
dim h ~ n^(1/2)
dim d = 3
matrix W : n x n
matrix U : n x n
matrix R : h x n
vector x : n
vector y : n
vector one : n = 1
matrix Q : n x h
vector a : h
vector b : h
input xi : d
"""

#: A program's last line -> the exponent of its variable, with the reason beside it.
BY_HAND = {
    "s = sum(x * x)": 1,  # law of large numbers
    "s = sum(x * y)": "1/2",  # independent
    "s = sum((W @ x) * x)": "1/2",  # a hat is independent of everything before it
    "s = sum((W @ (W @ x)) * x)": "1/2",  # levels: W W x is no even function of W
    "s = sum((W @ (W @ x)) * (W @ x))": "1/2",
    "s = sum((W.T @ (W @ x)) * x)": 1,  # Stein: W^T W x has x in it
    "s = sum((W.T @ tanh(W @ x)) * x)": 1,
    "s = sum((W.T @ cos(W @ x)) * x)": "1/2",  # E phi' = 0
    "s = sum((W.T @ (U @ x)) * x)": "1/2",
    "s = sum((U.T @ (W.T @ (W @ (U @ x)))) * x)": 1,
    "s = mean((Q @ a) * (Q @ b))": "-1/4",  # what a and b have in common by chance: a.b/h
    "s = mean((Q @ a) * tanh(Q @ b))": "-1/4",
    "s = mean((Q @ (R @ x)) * (Q @ (R @ y)))": "-1/4",
    "s = mean((Q @ a) * tanh(Q @ b) * y)": "-1/2",  # every coordinate has a sign of its own
    "s = mean((Q @ (R @ (Q @ (R @ x)))) * (Q @ a))": "-1/4",
    "s = mean((Q @ a) * y)": "-1/2",
    "s = mean((R.T @ a) * (Q @ b))": "-3/4",  # R^T a is of order n^(-1/4)
    "s = mean(tanh(Q @ a))": "-1/2",
    "s = mean((R @ x) * (R @ y))": "-1/4",  # the narrow axis itself
    "s = sum(x * x * x)": "1/2",  # odd
    "s = sum(tanh(x))": "1/2",
    "s = sum(relu(x))": 1,
    "s = sum((W @ relu(x)) * (W @ one))": 1,  # hats of correlated inputs correlate
    "s = sum((W @ tanh(x)) * (W @ one))": "1/2",
    "s = sum((W @ x) * (W @ y))": "1/2",
    "s = sum(cos(W @ x) * cos(W @ y))": 1,
    "s = sum((R @ x) * (R @ x)) / n": "-1/2",
    "v = R @ x": 0,
    "v = R.T @ (R @ x)": "-1/4",  # h summands of variance 1/n
    "s = sum((R.T @ (R @ x)) * x)": "1/2",  # the part along x is h/n of it
    "v = x - x": None,
    "v = x + y/n^(1/2)": 0,
    "s = sum((x + y/n^(1/4)) * y)": "3/4",  # the smaller part is the correlated one
    "s = sum((x + y/n^(1/2)) * y)": "1/2",
    "s = sum((x + y/n) * y)": "1/2",
    "s = mean(x)*mean(y)": -1,
    "v = mean(x) * x": "-1/2",
    "v = tanh(x / n^(1/2))": "-1/2",
    "v = cos(x / n^(1/2))": 0,
    "v = relu(n^(1/2) * x)": "1/2",
    "v = tanh(n^(1/2) * x)": 0,
    "v = gelu(n * x)": 1,
    "s = sum(tanh(x + y/n^(1/4)) * y)": "3/4",
    "s = sum(tanh(x + y/n^(1/4)) * y * y)": "1/2",
    "s = sum(gelu(x + y/n^(1/4)) * y)": "3/4",
}


def read(line: str) -> Fraction | None:
    p = parse(HEAD.strip() + "\n" + line + f"\noutput {line[0]}\n")
    return Scaling(p).exponent(line[0])


@pytest.mark.parametrize("line, e", BY_HAND.items(), ids=BY_HAND)
def test_by_hand(line, e):
    assert read(line) == (None if e is None else Fraction(e))


@pytest.mark.parametrize("line", BY_HAND)
def test_full_alignment_is_never_smaller(line):
    p = parse(HEAD.strip() + "\n" + line + f"\noutput {line[0]}\n")
    true, aligned = Scaling(p).exponent(line[0]), Scaling(p, aligned=True).exponent(line[0])
    assert aligned == true is None or aligned >= true


def test_hats_of_orthogonal_columns_are_independent():
    p = parse("dim n\ndim v = 4\nmatrix E : n x v ~ N(0, 1)\ninput a : v onehot 0\ninput b : v onehot 1\n"
              "s = sum((E @ a) * (E @ b))\nt = sum((E @ a) * (E @ a))\noutput s, t\n")
    s = Scaling(p)
    assert (s.exponent("s"), s.exponent("t")) == (Fraction(1, 2), 1)


def test_what_is_not_covered_says_why():
    p = parse(HEAD.strip() + "\nv = exp(n*x)\nw = W @ v\noutput w\n")
    s = Scaling(p)
    assert not s.defined("v") and not s.defined("w") and s.get("w") is None
    with pytest.raises(NotCoveredError, match="exp at an argument that grows"):
        s.exponent("w")


def test_rescaling_an_input_of_a_linear_program_adds_to_the_exponent():
    for e in ("-1", "1/2", "3"):
        p = parse(HEAD.strip() + f"\nu = n^({e}) * x\nv = W.T @ (W @ u) + U @ u\ns = sum(v * x)\noutput s\n")
        assert Scaling(p).exponent("s") == 1 + Fraction(e)
