"""Independent answers: the limit engine on two copies of a network, and networks of finite width."""

from fractions import Fraction

import numpy as np
from scipy import stats

from tensorprog.atoms.optimizers import optimizer
from tensorprog.exponents.scale import ONE
from tensorprog.finite.numpy_backend import run
from tensorprog.interp.backward import Backward
from tensorprog.interp.limit import Limits
from tensorprog.interp.unroll import _Unroll
from tensorprog.kernels.kernel import nngp, ntk
from tensorprog.program.instructions import Data
from tensorprog.scaling.assign import assign

from .networks import arrays


class Forward(_Unroll):
    """The forward pass of several samples."""

    def losses(self, i, t):
        """No losses, which would need targets."""


class Copies:
    """Two copies of a network with one output of one coordinate, at two inputs, and the gradients of their outputs.

    Args:
        network: its weights are the random ones; data inputs are given for each copy.
        data: for each copy the coordinates by the input's name.
    """

    def __init__(self, network, data):
        samples = [{k: Data(values=tuple(map(Fraction, v))) for k, v in d.items()} for d in data]
        unrolled = Forward(network, optimizer("sgd"), 0, samples, Fraction(1), None)
        self.program, self.network = unrolled.program, network
        (output,) = network.outputs
        one = unrolled.emit.constant(network.type_of(output), ONE)
        self.values, self.pairs = [], []
        for i in range(len(data)):
            unrolled.forward(i)
            passed = Backward(unrolled.emit, network, unrolled.now[i], lambda v, i=i: f"d{v}#{i}",
                              lambda line, g, out: [unrolled.emit.matmul(out, line.matrix, g, not line.transposed)],
                              unrolled.wanted)
            passed.run({output: one})
            self.values.append(unrolled.now[i])
            self.pairs.append(passed.pairs)
        self.output = [v[output] for v in self.values]
        self.products: dict[str, list[tuple[str, str]]] = {}
        for p in network.params:
            if p.param.trainable:
                for u, x in self.pairs[0].get(p.out, []):
                    for v, y in self.pairs[1].get(p.out, []):
                        self.products.setdefault(p.out, []).append((self.inner(u, v), self.inner(x, y)))

    def inner(self, u, v):
        """Write the sum of products of two vectors."""
        name = f"{u}.{v}"
        if name not in self.program:
            self.program.let(name, self.program.sum(self.program[u] * self.program[v]))
        return name

    def kernel(self, values, rates=None):
        """Return the tangent kernel by the limit engine; everything is a number there."""
        limits = Limits(self.program.copy().freeze(), values)
        n = self.network.scale_dim().growth

        def power(name):
            found = limits.names(name)
            return (Fraction(0) if found else None) if not isinstance(found, str) else limits.exponent(found)

        def number(name):
            found = limits.names(name)
            return float(found if not isinstance(found, str) else limits.chain.value(limits.scalar(found)))

        total = 0.0
        for w, products in self.products.items():
            a, c = (self.given(values, letter, w) for letter in "ac")
            for one, two in products:
                sizes = power(one), power(two)
                if None in sizes or sum(sizes) < (2 * a + c) * n:  # zero, or smaller: also what stays random
                    continue
                assert sum(sizes) == (2 * a + c) * n
                total += number(one) * number(two) * (rates or {}).get(w, 1.0)
        return total

    def given(self, values, letter, w):
        own = getattr(self.network.line_of(w).param, letter)
        return values[f"{letter}[{w}]"] if own is None else own


def exponents(network, parametrization="ntp"):
    """Return a value for every unknown exponent."""
    return assign(network, parametrization, optimizer("sgd"))


def covariance(network, data, values):
    """Return ``lim E f f'`` by the limit engine: the variance of V, times its columns, times the mean of x x'."""
    copies = Copies(network, data)
    line = network.line_of(network.outputs[0])
    matrix = network.line_of(line.matrix)
    u, v = (x[line.vector] for x in copies.values)
    copies.program.let("wanted", copies.program.mean(copies.program[u] * copies.program[v]))
    limits = Limits(copies.program.copy().freeze(), values)
    mean = float(limits.chain.value(limits.scalar(limits.names("wanted"))))
    return float(matrix.law.variance.number) * float(matrix.type.cols.factor) * mean


def finite(network, data, values, n, seeds):
    """Return samples of f f' and of the tangent kernel at width n, one a seed."""
    copies = Copies(network, data)
    program = copies.program.copy()
    wanted = [*copies.output, *dict.fromkeys(x for ps in copies.products.values() for p in ps for x in p)]
    outputs, tangents = [], []
    for seed in seeds:
        made = run(program, n, seed, values=values, keep=wanted)
        f, g = (np.ravel(made[x])[0] for x in copies.output)
        outputs.append(f * g)
        total = 0.0
        for w, products in copies.products.items():
            a, c = (copies.given(values, letter, w) for letter in "ac")
            total += sum(float(made[x]) * float(made[y]) for x, y in products) * float(n) ** -float(2 * a + c)
        tangents.append(total)
    return np.array(outputs), np.array(tangents)


def assert_limits_of(network, data, width, rates):
    """Assert that E f f' at a finite width is the kernel up to O(1/n), for which 2% is kept, for both kernels at two
    inputs; and that the tangent kernel at wrong rates is not. The interval is Student's at 99.9%."""
    samples = finite(network, data, exponents(network), width, range(300))
    X = arrays(data)
    for made, k in zip(samples, (nngp(network), ntk(network)), strict=True):
        claim, scale = k(X)[0, 1], float(np.sqrt(np.prod(k.diagonal(X))))
        slack = stats.t.ppf(0.9995, len(made) - 1) * stats.sem(made) + 0.02 * scale
        assert abs(np.mean(made) - claim) <= slack
    assert abs(np.mean(made) - ntk(network, rates=rates)(X)[0, 1]) > slack
