"""Small programs, functions and optimizer rules for the tests of execution at finite width, written out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tensorprog.atoms.function import Function
from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import (
    Data,
    Input,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Normal,
    Outer,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program

TABLE = {
    "tanh": np.tanh,
    "dtanh": lambda x: 1 / np.cosh(np.minimum(np.abs(x), 300.0)) ** 2,
    "relu": lambda x: np.maximum(x, 0.0),
    "step": lambda x: (x > 0) * 1.0,
    "sin": np.sin,
    "abs": np.abs,
}
DERIVATIVE = {"tanh": "dtanh", "relu": "step"}


@dataclass(frozen=True)
class Fn(Function):
    name: str
    arity: int = 1

    def evaluate(self, sizes, values, *args):
        return TABLE[self.name](*args)


@dataclass(frozen=True)
class Increment(Function):
    """phi(x + dx) - phi(x)."""

    fn: Fn
    arity: int = 2

    @property
    def name(self):
        return f"diff_{self.fn.name}"

    def evaluate(self, sizes, values, x, dx):
        return self.fn.evaluate(sizes, values, x + dx) - self.fn.evaluate(sizes, values, x)


@dataclass(frozen=True)
class Linear:
    """SGD, with momentum if beta is not 0."""

    beta: Fraction = Fraction(0)
    name: str = "sgd"
    linear: bool = True

    def linear_weights(self, t):
        return tuple(self.beta ** (t - s) for s in range(t + 1))


@dataclass(frozen=True)
class Adam:
    name: str = "adam"
    linear: bool = False

    def direction(self, gradients, eps):
        m, v, b1, b2 = 0.0, 0.0, 0.9, 0.999
        for g in gradients:
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        t = len(gradients)
        return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)


@dataclass(frozen=True)
class Sign:
    name: str = "signsgd"
    linear: bool = False

    def direction(self, gradients, eps):
        return np.sign(gradients[-1])


def gaussian(variance=ONE, mean=0):
    return Normal(Scale.of(mean), Scale.of(variance))


class Writer:
    """Appends lines to a program with one width n; every method returns the new variable's name."""

    def __init__(self, *dims: Dim):
        self.program = Program()
        self.n = self.program.add_dim(Dim("n"))
        for dim in dims:
            self.program.add_dim(dim)

    def vector(self, name, dim=None, law=None):
        return self.program.add(Input(name, VectorType(dim or self.n), law or gaussian()))

    def matrix(self, name, rows=None, cols=None, law=None):
        rows, cols = rows or self.n, cols or self.n
        return self.program.add(Input(name, MatrixType(rows, cols), law or gaussian(Scale.power(cols.name, -1))))

    def mul(self, matrix, vector, transposed=False, out=None):
        return self.program.add(MatMul(out or self.program.fresh("h"), matrix, vector, transposed))

    def fn(self, fn, *args, out=None):
        fn = Fn(fn) if isinstance(fn, str) else fn
        return self.program.add(Nonlin(out or self.program.fresh("x"), fn, args))

    def lin(self, *terms, out=None):
        """Return the sum of (coefficient, variable) terms."""
        return self.fn(Poly.linear([c for c, _ in terms]), *(v for _, v in terms), out=out)

    def times(self, *args, out=None):
        return self.fn(Poly.product(len(args)), *args, out=out)

    def moment(self, *args, mean=True, out=None):
        return self.program.add(Moment(out or self.program.fresh("s"), args, mean))

    def outer(self, rule, pairs, coef=ONE, gradient=ONE, eps=0):
        return self.program.add(Outer(self.program.fresh("dW"), rule, pairs, Scale.of(coef), Scale.of(gradient),
                                      eps=Scale.of(eps)))


def mlp(depth=3, batch=4, steps=3, rule=None, act="tanh", lr=Fraction(1, 2), data=3):
    """Return an MLP with ``depth`` hidden layers trained for ``steps`` full-batch steps, unrolled in incremental form.

    W0: n x data, W1..: n x n, V: 1 x n, scaled W = n^-a w, w ~ N(0, n^-2b), learning rate n^-c with unknown
    a[.], b[.], c[.]; squared loss against generic targets. Outputs f[t,s] at step t on sample s.
    """
    rule = rule or Linear()
    d, one = Dim.fixed("d", data), Dim.fixed("one", 1)
    w = Writer(d, one)
    names = [f"W{i}" for i in range(depth)] + ["V"]
    for i, name in enumerate(names):
        rows, cols = (one if name == "V" else w.n), (d if i == 0 else w.n)
        spread = Affine.symbol(f"a[{name}]") + Affine.symbol(f"b[{name}]")
        w.matrix(name, rows, cols, gaussian(Scale.power("n", -2 * spread)))
    xs = [w.vector(f"xi[{s}]", d, Data()) for s in range(batch)]
    ys = [w.vector(f"y[{s}]", one, Data()) for s in range(batch)]
    updates: dict[str, list[str]] = {name: [] for name in names}
    pairs: dict[str, list] = {name: [] for name in names}
    first: list[list[tuple[str, str]]] = []
    for t in range(steps + 1):
        deltas = []
        for s in range(batch):
            x0, dx, layers = xs[s], None, []
            for i, name in enumerate(names):
                last = name == "V"
                h0 = w.mul(name, x0, out=f"h0[{name},{s}]") if t == 0 else first[s][i][0]
                parts = [w.mul(name, dx)] if dx else []
                x_now = w.lin((1, x0), (1, dx)) if dx else x0
                parts += [w.mul(u, x_now) for u in updates[name]]
                dh = w.lin(*((1, p) for p in parts), out=f"dh[{t},{name},{s}]") if parts else None
                h = w.lin((1, h0), (1, dh)) if dh else h0
                layers.append((h0, x_now, h))
                if t == 0:
                    first.append([]) if i == 0 else None
                    first[s].append((h0, None if last else w.fn(act, h0, out=f"x0[{name},{s}]")))
                x0 = first[s][i][1]
                dx = w.fn(Increment(Fn(act)), h0, dh, out=f"dx[{t},{name},{s}]") if dh and not last else None
            f = w.lin((1, layers[-1][2]), out=f"f[{t},{s}]")
            w.program.output(f)
            if t < steps:
                deltas.append((w.lin((1, f), (-1, ys[s])), layers))
        for s, (g, layers) in enumerate(deltas):
            for i in reversed(range(len(names))):
                if len(pairs[names[i]]) <= t:
                    pairs[names[i]].append([])
                pairs[names[i]][t].append((g, layers[i][1]))
                if i:
                    back = [w.mul(names[i], g, True)] + [w.mul(u, g, True) for u in updates[names[i]]]
                    total = w.lin(*((1, b) for b in back)) if len(back) > 1 else back[0]
                    g = w.times(total, w.fn(DERIVATIVE[act], layers[i - 1][2]), out=f"g[{t},{names[i - 1]},{s}]")
        if t < steps:
            for name in names:
                mult = Scale.power("n", -1 * Affine.symbol(f"a[{name}]"))
                step = Scale.power("n", -1 * Affine.symbol(f"c[{name}]")) * mult * -lr
                updates[name].append(w.outer(rule, tuple(map(tuple, pairs[name])), step, mult * Fraction(1, batch)))
    return w.program.freeze()


def mup(depth=3, adam=False):
    """Return the exponents of muP for ``mlp``: Tensor Programs IV, table 1 (SGD); the same moved by gauge (Adam)."""
    half, values = Fraction(1, 2), {}
    for i in range(depth):
        a = Fraction(0) if i or adam else -half
        values |= {f"a[W{i}]": a, f"b[W{i}]": Fraction(0) if adam and not i else half}
        values |= {f"c[W{i}]": Fraction(1) if adam and i else Fraction(0)}
    return values | {"a[V]": half, "b[V]": half, "c[V]": half if adam else Fraction(0)}


def standard(depth=3, lr_power=0):
    """Return the exponents of the standard parametrization of ``mlp``: fan-in initialization, one learning rate."""
    half, values = Fraction(1, 2), {}
    for i in range(depth):
        values |= {f"a[W{i}]": Fraction(0), f"b[W{i}]": half if i else Fraction(0), f"c[W{i}]": Fraction(lr_power)}
    return values | {"a[V]": Fraction(0), "b[V]": half, "c[V]": Fraction(lr_power)}
