"""Finite networks in plain numpy: a tape of operations and its gradients, and nothing of the package."""

import functools
import math

import numpy as np


class Var:
    """An array and how its gradient goes on: pairs (variable, function of the gradient)."""

    def __init__(self, value, parents=()):
        self.value, self.parents = np.asarray(value, float), parents

    def __add__(self, other):
        other = other if isinstance(other, Var) else Var(other)
        return Var(self.value + other.value, ((self, lambda g: g), (other, lambda g: g)))

    def __sub__(self, other):
        return self + other * -1.0

    def __mul__(self, other):
        other = other if isinstance(other, Var) else Var(other)
        return Var(self.value * other.value, ((self, lambda g: g * other.value), (other, lambda g: g * self.value)))

    __radd__, __rmul__ = __add__, __mul__

    def map(self, fn, slope):
        """Apply a function to every coordinate."""
        return Var(fn(self.value), ((self, lambda g: g * slope(self.value)),))

    def mean(self):
        """Return the mean of all coordinates."""
        return Var(self.value.mean(), ((self, lambda g: np.full(self.value.shape, g / self.value.size)),))


def matvec(w, x, scale):
    """Return ``scale w x`` for a weight and a vector (a plain array is data)."""
    if not isinstance(x, Var):
        return Var(scale * (w.value @ x), ((w, lambda g: scale * np.outer(g, x)),))
    return Var(scale * (w.value @ x.value),
               ((w, lambda g: scale * np.outer(g, x.value)), (x, lambda g: scale * (w.value.T @ g))))


def gradients(out):
    """Return the gradient of a number by every variable that it depends on, by id."""
    order, seen = [], set()

    def visit(v):
        stack = [(v, iter(v.parents))]
        seen.add(id(v))
        while stack:
            v, rest = stack[-1]
            for p, _ in rest:
                if id(p) not in seen:
                    seen.add(id(p))
                    stack.append((p, iter(p.parents)))
                    break
            else:
                order.append(v)
                stack.pop()

    visit(out)
    found = {id(out): np.ones_like(out.value)}
    for v in reversed(order):
        for p, pull in v.parents:
            g = pull(found[id(v)])
            if p.value.ndim < np.ndim(g):  # a number that was multiplied with a vector
                g = g.sum()
            found[id(p)] = found[id(p)] + g if id(p) in found else np.asarray(g, float)
    return found


SIGMOID = (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))) ** 2)
TANH = (np.tanh, lambda x: 1 - np.tanh(x) ** 2)
_ERF = np.vectorize(math.erf)
GELU = (lambda x: x * (1 + _ERF(x / 2**0.5)) / 2,
        lambda x: (1 + _ERF(x / 2**0.5)) / 2 + x * np.exp(-x * x / 2) / (2 * np.pi) ** 0.5)
RELU = (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0)


class Weights:
    """Standard Gaussian weights of one network, made when first asked for; a weight is known by its name."""

    def __init__(self, rng):
        self.rng, self.made = rng, {}

    def __call__(self, name, rows, cols):
        if name not in self.made:
            self.made[name] = Var(self.rng.standard_normal((rows, cols)))
        return self.made[name]


def kernels(network, data, n, seeds, rates=None):
    """Return samples of ``s . s' / n``, the mean of f f' over the readout, and of ``sum_w rate <df/dw, df'/dw>``.

    Args:
        network: (weights, data, n) -> vectors s; outputs are ``f = V s / sqrt(n)``, V a vector.
        data: two inputs.
        rates: by the weight's name, 1 otherwise.

    Returns:
        (seeds, outputs, outputs) each: an output at the first input by one at the second.
    """
    products, tangents = [], []
    for seed in seeds:
        w = Weights(np.random.default_rng([seed, n]))
        hidden = [network(w, x, n) for x in data]
        outs = [[matvec(w("V", 1, n), s, n**-0.5) for s in ss] for ss in hidden]
        products.append([[float(s.value @ t.value) / n for t in hidden[1]] for s in hidden[0]])
        grads = [[gradients(f) for f in fs] for fs in outs]
        tangents.append([[sum((rates or {}).get(k, 1.0) * float(np.vdot(a[id(v)], b[id(v)]))
                              for k, v in w.made.items() if id(v) in a and id(v) in b) for b in grads[1]]
                         for a in grads[0]])
    return np.array(products), np.array(tangents)


def gru(w, xs, n, *, phi=TANH, gain=1.0):
    """``s_t = z s_{t-1} + (1 - z) phi(U x_t + W (r s_{t-1}))``, gates with their own weights, read out at the end;
    ``gain``: a number before the weights over time."""
    d, s = len(xs[0]), None
    for x in xs:
        def affine(kind, state, x=x):
            h = matvec(w(f"U{kind}1", n, d), x, 1.0)
            return h if state is None else h + matvec(w(f"W{kind}1", n, n), state, gain * n**-0.5)
        z = affine("z", s).map(*SIGMOID)
        c = affine("", None if s is None else affine("r", s).map(*SIGMOID) * s).map(*phi)
        s = c - z * c if s is None else z * s + c - z * c
    return [s]


def layernorm(w, name, x):
    """Return a LayerNorm with trained gain 1 and bias 0 (which are where they are at the start)."""
    n = len(x.value)
    c = x - x.mean()
    r = (c * c).mean().map(lambda v: (v + 1e-5) ** -0.5, lambda v: -0.5 * (v + 1e-5) ** -1.5)
    gain, bias = (w.made.setdefault(f"{name}_{k}", Var(np.full((n, 1), v))) for k, v in (("g", 1.0), ("b", 0.0)))
    one = np.ones(1)
    return c * r * matvec(gain, one, 1.0) + matvec(bias, one, 1.0)


def transformer(w, tokens, n, *, depth=1, d_head=2, alpha=1.0, ffn=4, vocab=3):
    """A pre-norm decoder whose n / d_head heads grow; tokens are vectors, places are one-hot."""
    heads, half = n // d_head, n**-0.5
    xs = [matvec(w("E", n, len(x)), x, 1.0) + matvec(w("P", n, len(tokens)), np.eye(len(tokens))[t], 1.0)
          for t, x in enumerate(tokens)]
    for b in range(1, depth + 1):
        ys = [layernorm(w, f"b{b}_n1", x) for x in xs]
        q, k, v = ([[matvec(w(f"b{b}_{c}{i}", heads, n), y, half) for y in ys] for i in range(d_head)] for c in "qkv")
        out = []
        for t, x in enumerate(xs):
            logits = [functools.reduce(Var.__add__, (q[i][t] * k[i][s] for i in range(d_head))) * d_head**-alpha
                      for s in range(t + 1)]
            e = [z.map(np.exp, np.exp) for z in logits]
            inverse = functools.reduce(Var.__add__, e).map(lambda u: 1 / u, lambda u: -1 / u**2)
            for i in range(d_head):
                mixed = functools.reduce(Var.__add__, (e[s] * inverse * v[i][s] for s in range(t + 1)))
                x = x + matvec(w(f"b{b}_o{i}", n, heads), mixed, half)
            out.append(x)
        xs = []
        for x in out:
            h = matvec(w(f"b{b}_up", ffn * n, n), layernorm(w, f"b{b}_n2", x), half)
            xs.append(x + matvec(w(f"b{b}_down", n, ffn * n), h.map(*GELU), half))
    return [layernorm(w, "nf", x) for x in xs]


def batchnorm(w, xs, n, *, depth=2, phi=RELU, affine=False):
    """A perceptron whose samples are normalized over their batch, coordinate by coordinate."""
    size = len(xs)
    for layer in range(1, depth + 1):
        hs = [matvec(w(f"W{layer}", n, len(x)), x, 1.0) if isinstance(x, np.ndarray) else
              matvec(w(f"W{layer}", n, n), x, n**-0.5) for x in xs]
        mean = functools.reduce(Var.__add__, hs) * (1 / size)
        cs = [h - mean for h in hs]
        var = functools.reduce(Var.__add__, (c * c for c in cs)) * (1 / size)
        r = var.map(lambda v: (v + 1e-5) ** -0.5, lambda v: -0.5 * (v + 1e-5) ** -1.5)
        xs = [c * r for c in cs]
        if affine:
            gain, bias = (matvec(w.made.setdefault(f"W{layer}_{k}", Var(np.full((n, 1), v))), np.ones(1), 1.0)
                          for k, v in (("g", 1.0), ("b", 0.0)))
            xs = [x * gain + bias for x in xs]
        xs = [x.map(*phi) for x in xs]
    return xs
