"""Networks whose kernels are tested: every weight with its own variance, one output of one coordinate."""

from fractions import Fraction

import numpy as np

from tensorprog.atoms.registry import nonlinearity
from tensorprog.exponents.scale import Scale
from tensorprog.program.build import apply
from tensorprog.program.instructions import Input, MatrixType, Normal, Param
from tensorprog.program.program import Program

NOTHING = Scale(Fraction(0))


class Net:
    """A network being written, in the neural tangent parametrization: ``W = n^-a w``, w ~ N(0, variance)."""

    def __init__(self, d=2):
        self.p = Program(loss="squared")
        self.n = self.p.dim("n")
        self.d, self.one = self.p.dim("d", d), self.p.dim("one", 1)
        self.unit = self.p.constant("unit", self.one)

    def weight(self, name, rows, cols, variance=1, **param):
        given = {"a": cols.growth / 2, "b": Fraction(0), "c": Fraction(0)} | param
        scale = Scale.of(Fraction(variance)) * self.n ** (-2 * (given["a"] + given["b"]))
        self.p.add(Input(name, MatrixType(rows, cols), Normal(NOTHING, scale), Param(**given)))
        return self.p[name]

    def bias(self, name, variance):
        return self.weight(name, self.n, self.one, variance) @ self.unit

    def phi(self, name, x):
        return apply(nonlinearity(name), x)

    def data(self, name="xi"):
        return self.p.data(name, self.d)

    def readout(self, x, variance=1):
        self.p.output(self.p.let("f", self.weight("V", self.one, x.type.dim, variance) @ x))
        return self.p.freeze()


def mlp(*activations, biases=False, wide=None):
    """A perceptron with a variance of its own for every layer; ``wide``: ratios of the hidden layers' widths."""
    net = Net()
    x = net.data()
    for i, name in enumerate(activations, 1):
        rows = net.n if wide is None else net.p.dim(f"n{i}", factor=wide[i - 1])
        h = net.weight(f"W{i}", rows, x.type.dim, Fraction(3 + i, 3)) @ x
        if biases:
            h = h + net.bias(f"b{i}", Fraction(1, 2 + i))
        x = net.p.let(f"x{i}", net.phi(name, net.p.let(f"h{i}", h)))
    return net.readout(x, Fraction(4, 5))


def residual(activation, depth=2, *, after=False):
    """``x + W phi(x)``, or ``x + phi(W x)`` (then a sum of functions)."""
    net = Net()
    x = net.p.let("x0", net.weight("W0", net.n, net.d, Fraction(3, 2)) @ net.data())
    for i in range(1, depth + 1):
        W = net.weight(f"W{i}", net.n, net.n, Fraction(1 + i, 2))
        x = net.p.let(f"x{i}", x + (net.phi(activation, W @ x) if after else W @ net.phi(activation, x)))
    return net.readout(x)


def normalized(activation, centered):
    """A norm with trained gain and bias before the nonlinearity, and one of a rectified vector before the readout."""
    net = Net()
    p = net.p
    h = p.let("h", net.weight("W1", net.n, net.d, 2) @ net.data())
    y = _norm(net, "N1", h, centered)
    x = p.let("x", net.phi(activation, p.let("y", y)))
    z = _norm(net, "N2", x, centered)
    return net.readout(p.let("z", net.weight("W2", net.n, net.n, Fraction(3, 2)) @ p.let("y2", z)))


def _norm(net, name, x, centered):
    p = net.p
    if centered:
        x = p.let(f"{name}_c", x - p.let(f"{name}_m", p.mean(x)))
    r = p.let(f"{name}_r", apply(nonlinearity("rsqrt", Fraction(1, 10)), p.mean(x * x)))
    y = x * r * (p.param(f"{name}_g", net.n, net.one, init="one", a=0, b=0, c=0) @ net.unit)
    return y + p.param(f"{name}_b", net.n, net.one, init="zero", a=0, b=0, c=0) @ net.unit if centered else y


def recurrent(activation, length=3):
    """``s_t = phi(W s_{t-1} + U xi_t + b)`` with weights shared over time, read out at the end."""
    net = Net()
    W = net.weight("W", net.n, net.n, Fraction(6, 5))
    U = net.weight("U", net.n, net.d, Fraction(1, 2))
    b = net.bias("b", Fraction(1, 10))
    s = None
    for t in range(1, length + 1):
        h = U @ net.data(f"xi{t}") + b
        h = net.p.let(f"h{t}", h if s is None else h + W @ s)
        s = net.p.let(f"s{t}", net.phi(activation, h))
    return net.readout(s)


def gated(activation="erf"):
    """A product of a gate and a linear part: ``phi(A x) * (B x)``, twice."""
    net = Net()
    x = net.p.let("x", net.weight("W", net.n, net.d, 1) @ net.data())
    for i in (1, 2):
        A, B = (net.weight(f"{k}{i}", net.n, net.n, 1 + Fraction(i, 3)) for k in "AB")
        x = net.p.let(f"y{i}", net.phi(activation, A @ x) * (B @ x))
    return net.readout(x)


def convolution(activation="relu", pooled=True):
    """A 1d convolution of three places with a filter of two, twice, then a mean over places (or the first)."""
    net = Net()
    xs = [net.data(f"xi{i}") for i in range(3)]
    for layer in (1, 2):
        cols = xs[0].type.dim
        W = [net.weight(f"W{layer}{k}", net.n, cols, Fraction(1 + k, 2)) for k in (0, 1)]
        hs = [net.p.let(f"h{layer}{i}", W[0] @ xs[i] + W[1] @ xs[i + 1]) for i in range(len(xs) - 1)]
        xs = [net.p.let(f"x{layer}{i}", net.phi(activation, h)) for i, h in enumerate(hs)]
        if layer == 1 and pooled:
            xs = [net.p.let("pool", (xs[0] + xs[1]) / 2)]
            break
    return net.readout(xs[0])


def linear_attention():
    """Three tokens, logits ``q.k/n`` of tied queries and keys, values by a matrix: ``sum_s (q_t.k_s/n) v_s``."""
    net = Net()
    W, Q, V = net.weight("W", net.n, net.d), net.weight("Q", net.n, net.n), net.weight("Vm", net.n, net.n)
    xs = [net.p.let(f"x{t}", W @ net.data(f"xi{t}")) for t in range(2)]
    qs = [net.p.let(f"q{t}", Q @ x) for t, x in enumerate(xs)]
    vs = [net.p.let(f"v{t}", V @ x) for t, x in enumerate(xs)]
    logits = [net.p.let(f"l{s}", net.p.mean(qs[0] * qs[s])) for s in range(2)]
    return net.readout(net.p.let("y", logits[0] * vs[0] + logits[1] * vs[1]))


NETWORKS = {
    "relu": lambda: mlp("relu", "relu"),
    "biases": lambda: mlp("relu", "erf", biases=True),
    "widths": lambda: mlp("relu", "relu", wide=(Fraction(2), Fraction(1, 2))),
    "gelu": lambda: mlp("gelu", biases=True),
    "residual": lambda: residual("relu"),
    "residual after": lambda: residual("erf", after=True),
    "residual after relu": lambda: residual("relu", 1, after=True),
    "layernorm": lambda: normalized("erf", True),
    "layernorm relu": lambda: normalized("relu", True),
    "rmsnorm": lambda: normalized("relu", False),
    "recurrent": lambda: recurrent("erf"),
    "recurrent relu": lambda: recurrent("relu", 2),
    "gated": gated,
    "convolution": convolution,
    "linear attention": linear_attention,
}


def inputs(network, rng, count=2):
    """Return exact data for every copy: coordinates that are quarters."""
    from tensorprog.program.instructions import Data

    names = {x.out: int(x.type.dim.factor) for x in network.lines if isinstance(x, Input) and isinstance(x.law, Data)}
    quarters = [-5, -3, -2, 2, 3, 5]
    return [{k: [Fraction(int(v), 4) for v in rng.choice(quarters, d)] for k, d in names.items()} for _ in range(count)]


def arrays(data):
    """Return the same as arrays, one row a copy."""
    return {k: np.array([[float(v) for v in copy[k]] for copy in data]) for k in data[0]}
