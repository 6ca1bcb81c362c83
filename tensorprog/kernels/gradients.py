"""Tangent kernels from the backward pass itself: where it meets the forward pass, in products with W and W^T.

    NTK = sum over weights of rate * <dh, dh'> <x, x'>, over all products h = W x,

dh a line of the backward program, read with its dots like any other line. (Where the readout is independent of all
else, centred and used nowhere else, gradients are independent of the forward pass, and ``tangent`` is enough.)

Source: yang2020tp2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from tensorprog.errors import NotCoveredError
from tensorprog.kernels.copies import Copies, Options, alike, laws
from tensorprog.kernels.covariance import Covariances
from tensorprog.kernels.expectations import Z
from tensorprog.kernels.plan import BOTH, ROW, Node
from tensorprog.kernels.readings import Fixed
from tensorprog.kernels.tangent import Powers
from tensorprog.program.instructions import Input, VectorType
from tensorprog.program.needed import needed
from tensorprog.program.program import Program, spell


class Gradients:
    """The backward passes of a network's outputs, read as covariances.

    Args:
        network: the forward program of one input.
        values: a rational for every unknown exponent.
        outputs: the variables; a number each, or a vector along a fixed axis whose coordinates are alike.
        inputs, options: as for ``Covariances``.

    Attributes:
        covariances: the reading of the program of both passes.

    Raises:
        NotCoveredError: a line has no kernel formula, or coordinates of an output are not alike.
    """

    def __init__(self, network: Program, values: Mapping[str, Fraction], outputs: Sequence[str],
                 inputs: Sequence[str], options: Mapping[str, Options]):
        for name in outputs:
            t = network.type_of(name)
            if isinstance(t, VectorType) and not t.dim.is_fixed:
                raise NotCoveredError(spell(network.line_of(name)), name, "a vector along a width has no tangent "
                                      "kernel", "read it out: f = V @ x, V : 1 x n")
            if isinstance(t, VectorType) and t.dim.factor != 1 and not alike(network, name):
                raise NotCoveredError(spell(network.line_of(name)), name, "its coordinates have kernels of their own",
                                      "take one number: g = sum(e * f), e a one-hot input")
        copies = Copies(network, laws(network, values, options), inputs, tags=("",))
        self.pairs = {name: copies.gradients(name, 0) for name in outputs}
        kept = needed(copies.program, [v for pairs in self.pairs.values() for ps in pairs.values() for p in ps
                                       for v in p])
        lines = [x for x in copies.program.lines if x.out in kept or isinstance(x, Input)]
        program = Program(network.dims.values(), lines, unknowns=network.unknowns).freeze()
        self.covariances = Covariances(program, values, inputs=inputs, **options)

    def tangent(self, a: str, b: str, pair: bool) -> Powers:
        """Return the tangent kernel of two outputs by powers of n."""
        cov, place = self.covariances, BOTH if pair else ROW
        found: dict[Fraction, list] = {}
        for w, pairs in self.pairs[a].items():
            matrix = cov.env[w]
            for g, x in pairs:
                for h, y in self.pairs[b].get(w, ()):
                    (e, one), (f, two) = self._inner(g, h, pair), self._inner(x, y, pair)
                    power = e + f + matrix.rate_power
                    if power > 0 and (one.is_zero or two.is_zero):
                        raise NotCoveredError(spell(cov.network.line_of(g)), f"n^({power})", "what it contributes to "
                                              "the kernel vanishes at this order, and may grow at the next one",
                                              "use a learning rate that falls faster with n")
                    found.setdefault(power, []).append((matrix.rate, ((one, place), (two, place))))
        return cov.sums(found, pair)

    def _inner(self, x: str, y: str, pair: bool) -> tuple[Fraction, Node]:
        """Return the sum of products of two vectors at its leading order, as (power of n, number)."""
        cov = self.covariances
        u, v = cov.env[x], cov.env[y]
        if isinstance(u, Fixed) and isinstance(v, Fixed):
            return u.power + v.power, cov.graph.gram(u.node, v.node, pair=pair)
        if not (isinstance(u, Z) and isinstance(v, Z) and u.wide and v.wide):
            raise NotCoveredError(spell(cov.network.line_of(x)), x, "along a fixed axis this stays random, and so does "
                                  "the kernel", "give its axis a width")
        dim: Any = cov.network.dim_of(x)
        node = cov.settle(lambda: cov.inner(u, v, pair))
        size = cov.graph.total([(float(dim.factor), ((node, BOTH if pair else ROW),))], pair=pair)
        return u.size + v.size + dim.growth, size
