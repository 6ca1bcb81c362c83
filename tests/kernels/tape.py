"""Finite networks in plain numpy: a tape of operations and its gradients, and nothing of the package."""

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
    """Return samples of f f' and of ``sum_w rate <df/dw, df'/dw>``, one a seed.

    Args:
        network: (weights, data, n) -> outputs, numbers (1,).
        data: two inputs.
        rates: by the weight's name, 1 otherwise.
    """
    products, tangents = [], []
    for seed in seeds:
        w = Weights(np.random.default_rng([seed, n]))
        outs = [network(w, x, n) for x in data]
        products.append([[float((f.value * g.value).sum()) for g in outs[1]] for f in outs[0]])
        grads = [[gradients(f) for f in fs] for fs in outs]
        tangents.append([[sum((rates or {}).get(k, 1.0) * float(np.vdot(a[id(v)], b[id(v)]))
                              for k, v in w.made.items() if id(v) in a and id(v) in b) for b in grads[1]]
                         for a in grads[0]])
    return np.array(products), np.array(tangents)


def gru(w, xs, n, *, phi=TANH):
    """``s_t = z s_{t-1} + (1 - z) phi(U x_t + W (r s_{t-1}))``, gates with their own weights, read out at the end."""
    d, s = len(xs[0]), None
    for x in xs:
        def affine(kind, state, x=x):
            h = matvec(w(f"U{kind}1", n, d), x, 1.0)
            return h if state is None else h + matvec(w(f"W{kind}1", n, n), state, n**-0.5)
        z = affine("z", s).map(*SIGMOID)
        c = affine("", None if s is None else affine("r", s).map(*SIGMOID) * s).map(*phi)
        s = c - z * c if s is None else z * s + c - z * c
    return [matvec(w("V", 1, n), s, n**-0.5)]
