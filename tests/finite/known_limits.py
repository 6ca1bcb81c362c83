"""Programs whose limits are known in closed form, derived by hand: name -> (text, scalar -> value)."""

import math
from math import asin, atan, cos, exp, pi, sin, sinh, sqrt

import tensorprog as tp

SQUARE = "dim n\nmatrix W : n x n ~ N(0, 1/n)\nvector x : n ~ N(0, 1)\n"
HALVED = "dim n\ndim m ~ 1/2*n\nmatrix W : m x n ~ N(0, 1/n)\nvector x : n ~ N(0, 1)\n"


def back(phi: str, slope: float, square: float):
    """y = W^T phi(W x): <x,y> = E phi', <y,y> = E phi^2 + (E phi')^2."""
    return SQUARE + f"y = W.T @ {phi}(W @ x)\nxy = mean(x*y)\nyy = mean(y*y)\n", {"xy": slope, "yy": square + slope**2}


def semicircle(k: int):
    """A = (W + W^T)/sqrt 2: <x, A^2j x> are Catalan numbers."""
    lines = [f"y{i + 1} = (W @ y{i} + W.T @ y{i})/sqrt(2)\n" for i in range(k)]
    return SQUARE + "y0 = x\n" + "".join(lines) + f"q = mean(y{k}*y{k})\nr = mean(x*y{k})\n", {
        "q": catalan(k), "r": 0.0 if k % 2 else catalan(k // 2)}


def catalan(k: int) -> int:
    return math.comb(2 * k, k) // (k + 1)


def deep(layers: int, phi: str = "relu"):
    """Forward and backward through relu layers of variance 2/n: every second moment stays 1."""
    text = "dim n\nvector x : n ~ N(0, 1)\nvector v : n ~ N(0, 1)\nz0 = x\n"
    for i in range(layers):
        text += f"matrix W{i} : n x n ~ N(0, 2/n)\nh{i} = W{i} @ z{i}\nz{i + 1} = {phi}(h{i})\n"
    text += f"d{layers} = v\n"
    for i in reversed(range(layers)):
        text += f"d{i} = W{i}.T @ (d{i + 1} * step(h{i}))\n"
    return text + f"q = mean(z{layers}*z{layers})\ng = mean(d0*d0)\nc = mean(d0*x)\n", {"q": 1, "g": 1, "c": 0}


def kernel(phi: str, value):
    """(a, b) ~ N(0, [[1, 1/2], [1/2, 1]]) pushed through one layer: E phi(a) phi(b)."""
    return ("dim n\nmatrix W : n x n ~ N(0, 1/n)\nvector a, b : n ~ N(0, [[1, 1/2], [1/2, 1]])\n"
            f"k = mean({phi}(W @ a) * {phi}(W @ b))\n"), {"k": value}


CHAIN = SQUARE + """
h = W @ x
u = relu(h)
y = W.T @ u
v = relu(y)
z = W @ v
zz = mean(z*z)
zh = mean(z*h)
zu = mean(z*u)
yy = mean(y*y)
xv = mean(x*v)
"""
STEP = """
dim n
vector U : n ~ N(0, 1)
vector V : n ~ N(0, 1)
x0 = relu(U)
f0 = mean(V*x0)
V1 = V - ETA*(f0 - 1)*x0
U1 = U - ETA*(f0 - 1)*V*step(U)
x1 = relu(U1)
f1 = mean(V1*x1)
"""
LINEAR = """
dim n
vector U : n ~ N(0, 1)
vector V : n ~ N(0, 1)
f0 = mean(V*U)
V1 = V - 1/4*(f0 - 1)*U
U1 = U - 1/4*(f0 - 1)*V
f1 = mean(V1*U1)
V2 = V1 - 1/4*(f1 - 1)*U1
U2 = U1 - 1/4*(f1 - 1)*V1
f2 = mean(V2*U2)
"""
SAME_W = SQUARE + """
vector t : n ~ N(0, 1)
D = step(W @ t)
m1 = W.T @ (D * (W @ x))
m2 = W.T @ (D * (W @ m1))
k1 = mean(x*m1)
k2 = mean(m1*m1)
k3 = mean(m1*m2)
k4 = mean(m2*m2)
"""
FIXED = """
dim n
dim d = 3
matrix U : n x d ~ N(0, 1)
input xi : d = [1, 0, -1]
input eta : d = [1, 1, 0]
h = U @ xi
g = relu(h)
hh = mean(h*h)
gg = mean(g*g)
cross = mean(h*(U @ eta))
"""

KNOWN: dict[str, tuple[str, dict[str, float]]] = {
    "id": back("", 1, 1),
    "relu": back("relu", 1 / 2, 1 / 2),
    "erf": back("erf", 2 / sqrt(3 * pi), 2 / pi * asin(2 / 3)),
    "sin": back("sin", exp(-1 / 2), exp(-1) * sinh(1)),
    "tanh": back("tanh", 0.6057055096021519, 1 - 0.6057055096021519),  # E sech^2 = 1 - E tanh^2, by quadrature
    "sign": back("sign", sqrt(2 / pi), 1),
    "abs": back("abs", 0, 1),
    "step": back("step", 1 / sqrt(2 * pi), 1 / 2),
    "fourth": (SQUARE + "y = W.T @ (W @ x)\nq = mean(x*x*y*y)\n", {"q": 4}),
    "there and back": (SQUARE + "h = W @ x\nz = W @ (W.T @ h)\nzz = mean(z*z)\nzh = mean(z*h)\n", {"zz": 5, "zh": 2}),
    "chain": (CHAIN, {"zz": 5 / 8, "zh": 1 / 2, "zu": 3 / 8, "yy": 3 / 4, "xv": 1 / 4}),
    "semicircle 2": semicircle(2),
    "semicircle 3": semicircle(3),
    "semicircle 5": semicircle(5),
    "ones": ("dim n\nmatrix W : n x n ~ N(0, 1/n)\nvector x : n = 1\n"
             "y = W.T @ relu(W @ x)\nq = mean(y)\nyy = mean(y*y)\n",
             {"q": 1 / 2, "yy": 3 / 4}),
    "independent readout": (SQUARE + "vector v : n ~ N(0, 1)\ng = W.T @ (v * step(W @ x))\n"
                            "xg = mean(x*g)\ngg = mean(g*g)\n",
                            {"xg": 0, "gg": 1 / 2}),
    "squares, gradient": (SQUARE + "h = W @ (1/2*x*x)\ng = x * (W.T @ h)\ngg = mean(g*g)\n", {"gg": 9 / 2}),
    "cosine": (SQUARE + "z = W @ cos(W.T @ x + 1)\nxz = mean(x*z)\nzz = mean(z*z)\n",
               {"xz": -exp(-1 / 2) * sin(1), "zz": (1 + exp(-2) * cos(2)) / 2 + exp(-1) * sin(1) ** 2}),
    "half as many rows": (HALVED + "a = W.T @ (W @ x)\nb = W.T @ (W @ a)\nk1 = mean(x*a)\nk2 = mean(a*a)\n"
                          "k3 = mean(a*b)\nk4 = mean(b*b)\n", {"k1": 0.5, "k2": 0.75, "k3": 1.375, "k4": 2.8125}),
    "tied autoencoder": (HALVED + "y = W.T @ relu(W @ x)\nxy = mean(x*y)\nyy = mean(y*y)\n",
                         {"xy": 1 / 4, "yy": 5 / 16}),
    "product": (SQUARE + "matrix V : n x n ~ N(0, 1/n)\np = W @ (V @ x)\nq = V.T @ (W.T @ p)\nr = W @ (V @ q)\n"
                "k1 = mean(p*p)\nk2 = mean(q*q)\nk3 = mean(r*r)\n", {"k1": 1, "k2": 3, "k3": 12}),
    "own activations": (SAME_W, {"k1": 1 / 2, "k2": 3 / 4, "k3": 11 / 8, "k4": 45 / 16}),
    "relu step": (STEP.replace("ETA", "1") + "xx = mean(x1*x1)\n",
                  {"f1": (pi - atan(1)) / pi + 1 / (2 * pi), "xx": (2 * (pi - atan(1)) + 1) / (2 * pi)}),
    "small relu step": (STEP.replace("ETA", "1/2"), {"f1": (pi - atan(1 / 2)) / (2 * pi) + 1 / (8 * pi)}),
    "linear steps": (LINEAR, {"f0": 0, "f1": 1 / 2, "f2": 99 / 128}),
    "relu kernel": kernel("relu", (sqrt(3) / 2 + (pi - pi / 3) / 2) / (2 * pi)),
    "sign kernel": kernel("sign", 1 / 3),
    "erf kernel": kernel("erf", 2 / pi * asin(1 / 3)),
    "sine kernel": kernel("sin", exp(-1) * sinh(1 / 2)),
    "two layers": deep(2),
    "three layers": deep(3),
    "ten layers": deep(10),
    "fixed axis": (FIXED, {"hh": 2, "gg": 1, "cross": 1}),
}


def known(name: str):
    """Return the program, and its limits."""
    text, limits = KNOWN[name]
    return tp.parse(text), limits
