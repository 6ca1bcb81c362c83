"""What tests of architectures share: values for unknown exponents, variances for weights, and the weights of a run."""

from dataclasses import replace
from fractions import Fraction

from tensorprog.exponents.scale import Scale
from tensorprog.interp.unroll import symbol
from tensorprog.program.instructions import Input, Normal
from tensorprog.program.program import Program


def values(net):
    """Return exponents with which every weight of the network starts at variance 1 over its growing fan-in."""
    out = {name: Fraction(1, 2) for name in net.unknowns}
    for p in net.params:
        fan_in = Fraction(0) if p.type.cols.is_fixed else Fraction(1, 2)
        out |= {symbol("a", p.out): Fraction(0), symbol("b", p.out): fan_in, symbol("c", p.out): Fraction(0)}
    return out


def with_variances(net, given):
    """Return the network with these variances, over the growing fan-in, of some weights (biases too); no unknowns."""
    lines = []
    for x in net.lines:
        if isinstance(x, Input) and x.param is not None:
            number = given.get(x.out, 1)
            scale = Scale.of(Fraction(number)) * x.type.cols ** -1 if x.type.cols.growth else Scale.of(Fraction(number))
            x = replace(x, law=Normal(Scale(Fraction(0)), scale), param=None)
        lines.append(x)
    return Program(net.dims.values(), lines, outputs=net.outputs).freeze()


def drawn(net, n, draws):
    """Return the weights of ``with_variances(net, {})`` at width n as arrays, by name."""
    sizes, out = net.sizes(n), {}
    for p in net.params:
        rows, cols = sizes[p.type.rows.name], sizes[p.type.cols.name]
        out[p.out] = draws.normal(p.out, (rows, cols)) / (cols if p.type.cols.growth else 1) ** 0.5
    return out
