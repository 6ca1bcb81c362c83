"""A network read as a recursion of covariances over its lines: every line for one input, products for two.

    E (W x)(W x') = sigma^2 |x . x'|,   one Gaussian family a matrix, families independent,
    E f(g) h(g') = the dual of f and h at the covariances of g and g',
    means over a width are numbers of the input.

Source: yang2019wide (the recursion for any architecture), yang2020tp2 (tangent kernels), lee2018deep (networks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from numbers import Real
from typing import Any

from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.exponents.scale import Scale
from tensorprog.interp.covered import Covered
from tensorprog.interp.rules import Rules
from tensorprog.kernels.copies import Options
from tensorprog.kernels.dots import Dotted
from tensorprog.kernels.expectations import ZERO, Atom, Z
from tensorprog.kernels.plan import Graph, Node
from tensorprog.kernels.readings import Fixed, Matrix, Number
from tensorprog.kernels.tangent import count
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    Joint,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Normal,
    Outer,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

covariance = Rules("covariance", listed=False)

#: What options may name in any network, so that they need not follow its depth.
ROLES = frozenset(("*", "input", "hidden", "readout", "bias", "gain"))


class Covariances(Dotted):
    """The reading of a network.

    Args:
        network: the forward program of one input.
        values: a rational for every unknown exponent.
        inputs: the data inputs that differ between inputs; None: those without values, or all if every one has some.
        variances, multipliers, rates: by weight, role or "*"; see ``nngp``.

    Attributes:
        env: what every variable is.
        graph: the nodes made so far.

    Raises:
        NotCoveredError: a line has no kernel formula; it names the line, the value, the reason and the fix.
    """

    def __init__(self, network: Program, values: Mapping[str, Fraction], *, inputs: Sequence[str] | None = None,
                 variances: Options | None = None, multipliers: Options | None = None, rates: Options | None = None):
        super().__init__(Graph())
        self.network, self.values = network, values
        self.options = {"variances": variances or {}, "multipliers": multipliers or {}, "rates": rates or {}}
        self.inputs = varied(network, inputs)
        self._check_options()
        self.env: dict[str, Any] = {}
        self.uses = {}
        self.atoms: dict[tuple, Atom] = {}
        self.checked = False
        #: A number is within n^-noise of its limit.
        self.noise = min((d.growth for d in network.dims.values() if not d.is_fixed), default=ZERO) / 2
        for line in network.lines:
            self.env[line.out] = self.settle(lambda line=line: covariance[line](self, line))

    def _check_options(self) -> None:
        known = ROLES | {p.out for p in self.network.params} | {p.param.role for p in self.network.params}
        for option, given in self.options.items():
            for name, x in given.items():
                if name not in known:
                    raise ProgramError(option, name, "the network has no weight and no role of this name",
                                       "use " + ", ".join(sorted(known - {""})))
                if not isinstance(x, Real) or not 0 <= x < float("inf"):
                    raise ProgramError(f"{option}[{name}]", x, "not a number of at least 0", "give a finite number")

    def option(self, option: str, line: Any) -> float | None:
        """Return what an option says about a weight: by its name, its role, or "*"."""
        given = self.options[option]
        return next((float(given[k]) for k in (line.out, line.param.role, "*") if k in given), None)

    # ------------------------------------------------------------------------------------------ helpers

    def atom(self, key: tuple, **facts) -> Atom:
        """Return the atom of a key."""
        if key not in self.atoms:
            self.atoms[key] = Atom(len(self.atoms), **facts)
        return self.atoms[key]

    def scale(self, s: Scale) -> tuple[float, Fraction]:
        """Return a coefficient as (number, power of n)."""
        number = float(s.number)
        for name, power in s.powers:
            number *= float(self.network.dims[name].factor) ** float(power.value(self.values))
        return number, s.exponent(self.network.growths, self.values)

    def is_wide(self, name: str) -> bool:
        """Whether a variable is a vector along a width."""
        t = self.network.type_of(name)
        return isinstance(t, VectorType) and not t.dim.is_fixed

    def named(self, line: Any, z: Z) -> Z:
        """Return a line's coordinate without its smaller terms.

        A sum gets a name, so that it is written out once; so does a Gaussian times a gain, so that it is one Gaussian.
        """
        size = z.size
        kept = [t for t in z.listed() if t[1] >= size or any(a.value is not None for a in t[3])]
        z = Z.of([(c, e, fs, atoms) for c, e, fs, atoms in kept], z.wide)
        if len(z.terms) < 2 and all(len(atoms) < 2 for _, _, _, atoms in z.listed()):
            return z
        inside = Z.of([(c, e - size, fs, atoms) for c, e, fs, atoms in z.listed()], z.wide)
        form = self.linear(inside)
        gaussian = bool(form) and all(atoms for _, _, _, atoms in form or ())
        if len(z.terms) < 2 and not gaussian:
            return z
        flat = tuple((c, fs, atoms[0]) for c, _, fs, atoms in form or ()) if gaussian else None
        atom = self.atom(("sum", inside.key), kind="sum", line=spell(line), reach=z.reach, inside=inside, form=flat)
        return Z.of([(1.0, size, (), (atom,))], z.wide)

    def linear(self, z: Z) -> list | None:
        """Return the terms of order n^0, what is not random in numbers; None unless it is linear in Gaussians."""
        out = []
        for c, e, fs, atoms in z.listed():
            values = [a.value for a in atoms if a.value is not None]
            random = [a for a in atoms if a.value is None]
            if e != 0 or any(v.is_zero for v in values):
                continue
            if len(random) > 1 or any(not a.gaussian for a in random):
                return None
            if random and random[0].form is not None and len(random[0].form) == 1:  # a Gaussian times numbers
                ((d, hs, a),) = random[0].form
                out.append((c * d, e, (*fs, *hs, *values), (a,)))
            else:
                out.append((c, e, (*fs, *values), tuple(random)))
        return Z.of(out).listed()

    def make(self, fn: Any, z: Z, line: str, primitive: Any = None) -> Z:
        """Return ``fn(z)``, z of order n^0 unless fn is homogeneous."""
        if z.alone is not None and z.alone.kind == "sum" and not z.alone.gaussian:
            z = z.alone.inside
        size, degree = z.size, getattr(fn, "degree", None)
        if getattr(fn, "name", "") == "identity":
            return z
        if not isinstance(fn, Nonlinearity):
            return self.general(fn, [z], line)
        if size and degree is None:
            grows = "grows with n" if size > 0 else "vanishes as n grows"
            raise NotCoveredError(line, f"n^({size})", f"the argument of {fn.name} {grows}",
                                  "use a parametrization in which it is of order 1")
        inside = Z.of([(c, e - size, fs, atoms) for c, e, fs, atoms in z.listed()], z.wide)
        form = self.linear(inside)
        power = size * degree if degree is not None else ZERO
        if form is None:
            return self.general(fn, [inside], line, power)
        shift = [(c, fs) for c, _, fs, atoms in form if not atoms]
        if len(shift) == len(form):  # a number for every input
            total = self.graph.total([(c, tuple((f, 0) for f in fs)) for c, fs in shift], pair=False)
            return Z.of([(1.0, power, (self.graph.function(fn, [total]),), ())], z.wide)
        if fn.domain != "real":
            raise NotCoveredError(line, fn.name, "a Gaussian also takes values where this is not defined",
                                  "use a nonlinearity of the whole real line")
        if shift:  # duals are those of centred Gaussians
            return self.general(fn, [inside], line, power)
        atom = self.atom(("function", fn, inside.key, primitive), kind="function", line=line, reach=z.reach,
                         inside=inside, fn=fn, primitive=primitive,
                         form=tuple((c, fs, atoms[0]) for c, _, fs, atoms in form))
        return Z.of([(1.0, power, (), (atom,))], z.wide)

    def general(self, fn: Any, zs: Sequence[Z], line: str, power: Fraction = ZERO) -> Z:
        """Return a function of anything of order n^0, whose expectations are sampled, times ``n^power``."""
        if not self.checked:
            Covered(self.network)  # growth and domains: what is sampled must have moments
            self.checked = True
        atom = self.atom(("general", fn, tuple(z.key for z in zs)), kind="general", line=line, inside=tuple(zs), fn=fn,
                         reach=frozenset().union(*(z.reach for z in zs)))
        return Z.of([(1.0, power, (), (atom,))])


def varied(network: Program, inputs: Sequence[str] | None) -> tuple[str, ...]:
    """Return the data inputs that differ between inputs."""
    data = {x.out: x.law for x in network.lines if isinstance(x, Input) and isinstance(x.law, Data)}
    if inputs is None:
        open_ones = tuple(k for k, law in data.items() if law.values is None and law.onehot is None)
        return open_ones or tuple(data)
    if len(set(inputs)) < len(inputs):
        raise ProgramError("inputs", ", ".join(inputs), "an input is there twice", "name each once")
    for name in inputs:
        if name not in data:
            raise ProgramError("inputs", name, "the network has no data input of this name",
                               "use " + ", ".join(data) if data else "declare one: input xi : d")
    return tuple(inputs)


# ------------------------------------------------------------------------------------------------ the rules


@covariance(Input)
def _input(self: Covariances, line: Input):
    t, law = line.type, line.law
    if isinstance(t, MatrixType):
        return _matrix(self, line, t)
    fixed = not isinstance(t, VectorType) or t.dim.is_fixed
    if isinstance(law, Data):
        return _data(self, line, law)
    if isinstance(law, Constant):
        number, e = self.scale(law.value)
        if not fixed:
            return Z.of([(number, e, (), ())])
        if isinstance(t, VectorType):
            return Fixed(e, self.graph.array([number] * int(t.dim.factor)))
        return Number(e, self.graph.constant(number))
    if fixed:
        raise NotCoveredError(spell(line), str(t), "a random vector along a fixed axis stays random as n grows",
                              "give it values, or an axis that grows")
    return _source(self, line, law)


def _data(self: Covariances, line: Input, law: Data):
    size = int(line.type.dim.factor) if isinstance(line.type, VectorType) else 0
    if line.out in self.inputs:
        node = self.graph.input(line.out, "vector" if size else "one")
    elif law.values is None and law.onehot is None:
        raise NotCoveredError(spell(line), line.out, "this data has no values", "name it among the inputs")
    else:
        numbers = [float(x) for x in law.values or (i == law.onehot for i in range(size))]
        node = self.graph.array(numbers) if size else self.graph.constant(float(numbers[0]))
    return Fixed(ZERO, node) if size else Number(ZERO, node)


def _source(self: Covariances, line: Input, law: Any) -> Z:
    if isinstance(law, Normal):
        (mean, e), (variance, g) = self.scale(law.mean), self.scale(law.variance)
        power = g / 2

        def common(other: Atom) -> float:
            return variance
        reach = line.out
    else:
        assert isinstance(law, Joint)
        (mean, e), (variance, g) = self.scale(law.means[law.index]), self.scale(law.covariance[law.index][law.index])
        power, reach = g / 2, " ".join(law.group)

        def common(other: Atom) -> float:
            number, size = self.scale(law.covariance[law.index][law.group.index(other.line.split()[-1])])
            return number if size == power + other.power else 0.0
    terms: list = [(mean, e, (), ())] if mean else []
    if variance:
        atom = self.atom(("source", line.out), kind="source", line=spell(line), reach=frozenset((reach,)), law=common,
                         family=reach, power=power)
        terms.append((1.0, power, (), (atom,)))
    return Z.of(terms)


def _matrix(self: Covariances, line: Any, t: MatrixType) -> Matrix:
    law, param = line.law, line.param
    number, e = self.scale(law.value if isinstance(law, Constant) else law.mean)
    variance, g = (0.0, ZERO) if isinstance(law, Constant) else self.scale(law.variance)
    rate, rate_power, multiplier = 0.0, ZERO, 1.0
    if param is not None:
        n = self.network.scale_dim(line.out)
        a, b, c = (self.values.get(f"{s}[{line.out}]", ZERO) if own is None else own
                   for s, own in zip("abc", (param.a, param.b, param.c), strict=True))
        given = self.option("variances", line)
        if given is not None:
            variance = given
            if isinstance(law, Constant):
                g = -2 * (a + b) * n.growth
        asked, speed = self.option("multipliers", line), self.option("rates", line)
        multiplier = 1.0 if asked is None else asked
        if param.trainable:
            rate = (1.0 if speed is None else speed) * multiplier**2
            rate_power = -(2 * a + c) * n.growth
    return Matrix(line.out, t.rows, t.cols, variance * multiplier**2, g / 2, number * multiplier, e, rate, rate_power)


@covariance(MatMul)
def _matmul(self: Covariances, line: MatMul):
    matrix, x = self.env[line.matrix], self.env[line.vector]
    rows, cols = (matrix.cols, matrix.rows) if line.transposed else (matrix.rows, matrix.cols)
    wide = not rows.is_fixed
    if isinstance(x, Z) and not x.wide:
        raise NotCoveredError(spell(line), line.vector, "this vector along a fixed axis stays random as n grows",
                              "give its axis a width")
    if matrix.mean and isinstance(x, Z):
        raise NotCoveredError(spell(line), line.matrix, "entries of this matrix have a mean, and add up over a width",
                              "use entries of mean zero")
    mean = None
    if isinstance(x, Fixed):
        size, inside, e = x.power, x.node, matrix.power
        if matrix.mean:
            ones = self.graph.array([1.0] * int(cols.factor))
            mean = self.graph.total([(matrix.mean, ((self.graph.gram(x.node, ones, pair=False), 0),))], pair=False)
    else:
        size, inside, e = x.size, x, matrix.power + cols.growth / 2
    random = matrix.variance > 0
    power = size + (e if random else matrix.mean_power if mean is not None else matrix.rate_power / 2 + e)
    value = None if random else self.graph.constant(0.0) if mean is None else mean
    key = ("product", line.matrix, line.transposed, inside.key if isinstance(inside, Z) else inside.number)
    if line.transposed:  # products with W and with its transpose are families of their own
        matrix = replace(matrix, name=f"{line.matrix}.T")
    reach = frozenset((matrix.name,)) | (x.reach if isinstance(x, Z) else frozenset())
    gain = matrix.variance * count(cols, x)
    atom = self.atom(key, kind="product", line=spell(line), reach=reach, value=value, inside=inside, power=power,
                     gain=gain, family=(matrix, cols))
    if random and wide:
        _settle(self, atom)
    terms: list = [(1.0, power, (), (atom,))]
    uses = self.uses.setdefault((line.matrix, line.transposed), [])
    if atom not in uses:
        uses.append(atom)
    data: list = []
    opposite = self.uses.get((line.matrix, not line.transposed), ())
    if opposite and wide and isinstance(x, Z) and rows.growth != cols.growth:
        raise NotCoveredError(spell(line), f"{rows.name} ~ n^{rows.growth}, {cols.name} ~ n^{cols.growth}",
                              f"{line.matrix} is used both ways between axes that grow at different rates",
                              "give both axes one growth, or use an independent matrix")
    for u, e, node in self.dots(x, opposite):
        e += 2 * matrix.power + cols.growth - u.power
        if isinstance(u.inside, Node):  # a hat's power is its vector's, times an entry's
            data.append((e + u.power - matrix.power, gain, [node, u.inside]))
        else:
            terms += [(c * gain, e + g, (node, *fs), atoms) for c, g, fs, atoms in u.inside.listed()]
    if data and not wide:  # along a fixed axis it is larger than what is random
        top = max(e for e, _, _ in data)
        return Fixed(top, self.graph.spread([(c, parts) for e, c, parts in data if e == top]))
    if not wide and isinstance(x, Z) and any(u.number in self.support(x) for u in opposite):
        raise NotCoveredError(spell(line), line.vector, f"it depends on {line.matrix}, coordinate by coordinate, so "
                              "that sums of their products are not simply Gaussian", "use an independent matrix")
    if random and mean is not None:
        terms.append((1.0, size + matrix.mean_power, (mean,), ()))
    return self.named(line, Z.of(terms, wide))


def _settle(self: Covariances, atom: Atom) -> None:
    """Compute the variance in the order of the lines, which keeps recursions short."""
    self.covariance(atom, atom, False)


@covariance(Nonlin)
def _nonlin(self: Covariances, line: Nonlin):
    args = [self.env[a] for a in line.args]
    if isinstance(line.fn, Poly):
        return _poly(self, line, line.fn, args)
    for name, x in zip(line.args, args, strict=True):
        if isinstance(x, Z) and not x.wide or isinstance(x, Number) and x.node is None and x.power >= 0:
            raise NotCoveredError(spell(line), name, f"{name} stays random as n grows, and {line.fn.name} of it is not "
                                  "Gaussian", "take program.limit, or a scaling in which it vanishes (1/d attention), "
                                  "or heads that grow (transformer: regime={'heads': 1})")
    if any(isinstance(x, Z) for x in args):
        if len(args) == 1:
            return self.make(line.fn, args[0], spell(line))
        return self.general(line.fn, [_argument(line, name, x) for name, x in zip(line.args, args, strict=True)],
                            spell(line))
    kind = Fixed if any(isinstance(x, Fixed) for x in args) else Number
    nodes, power = [], ZERO
    for name, x in zip(line.args, args, strict=True):
        degree = getattr(line.fn, "degree", None)
        if x.power > 0 or x.power < 0 and degree is not None:
            if degree is None or len(args) > 1:
                raise NotCoveredError(spell(line), f"n^({x.power})", f"{name} grows with n", "scale it to order 1")
            power = x.power * degree
        nodes.append(self.graph.constant(0.0) if x.power < 0 and not power else x.node)
    if None in nodes:
        return Number(power, None)
    found = self.graph.function(line.fn, nodes, vector=kind is Fixed)
    if kind is Number and found.is_zero and any(x.power < 0 for x in args):  # smaller, and as random as what is in it
        return Number(max(x.power for x in args if x.power < 0), None)
    return kind(power, found)


def _argument(line: Nonlin, name: str, x: Any) -> Z:
    """Return an argument of a function of several."""
    if isinstance(x, Fixed):
        raise NotCoveredError(spell(line), name, "data and a random output in one function",
                              "leave the data out, or apply a matrix to it")
    if isinstance(x, Number):
        x = Z.of([(1.0, x.power, (x.node,), ())] if x.node is not None and x.power >= 0 else [])
    if x.size:
        grows = "grows with n" if x.size > 0 else "vanishes as n grows"
        raise NotCoveredError(spell(line), f"n^({x.size})", f"{name}, an argument of {line.fn.name}, {grows}",
                              "use a parametrization in which it is of order 1")
    return x


def _poly(self: Covariances, line: Nonlin, fn: Poly, args: Sequence[Any]):
    terms = [(*self.scale(s), [x for x, p in zip(args, powers, strict=True) for _ in range(p)])
             for s, powers in fn.terms]
    kind: Any = self.network.type_of(line.out)
    if any(isinstance(x, Z) for x in args) or self.is_wide(line.out):
        return _polynomial(self, line, terms, self.is_wide(line.out))
    sized = [(c, e + sum((x.power for x in xs), ZERO), xs) for c, e, xs in terms]
    live = [t for t in sized if not any(x.node is not None and x.node.is_zero for x in t[2])]
    top = max((e for _, e, _ in live), default=ZERO)
    leading = [(c, xs) for c, e, xs in live if e == top]
    if isinstance(kind, VectorType):
        ones = self.graph.array([1.0] * int(kind.dim.factor))
        return Fixed(top, self.graph.spread([(c, [x.node for x in xs] or [ones]) for c, xs in leading]))
    if any(x.node is None for _, xs in leading for x in xs):
        return Number(top, None)
    total = self.graph.total([(c, tuple((x.node, 0) for x in xs)) for c, xs in leading], pair=False)
    return Number(top - self.noise, None) if leading and total.is_zero else Number(top, total)


def _polynomial(self: Covariances, line: Nonlin, terms, wide: bool) -> Z:
    out: list = []
    for c, e, xs in terms:
        product: list = [(c, e, (), [])]
        for x in xs:
            if isinstance(x, Number) and x.node is None:
                product = [(c, e + x.power, None, atoms) for c, e, _, atoms in product]
            elif isinstance(x, Number):
                product = [(c, e + x.power, None if fs is None else (*fs, x.node), a) for c, e, fs, a in product]
            elif isinstance(x, Fixed):
                raise NotCoveredError(spell(line), line.out, "data and a random output in one sum or product",
                                      "leave the data out, or apply a matrix to it")
            else:
                product = [(c * d, e + g, None if fs is None else (*fs, *hs), [*a, *b])
                           for c, e, fs, a in product for d, g, hs, b in x.listed()]
        if not wide and any(len(atoms) > 1 for _, _, _, atoms in product):
            raise NotCoveredError(spell(line), line.out, "a product of outputs is not Gaussian", "take program.limit")
        out += product
    if not out:
        return Z.of([], wide)
    size = max((e for _, e, fs, _ in out if fs is not None), default=None)
    if size is None or any(fs is None and e >= size for _, e, fs, _ in out):
        raise NotCoveredError(spell(line), line.out, "a number in it stays random as n grows",
                              "take program.limit, or a scaling in which it vanishes")
    found = Z.of([t for t in out if t[2] is not None], wide)
    lost = [e for c, e, fs, atoms in out if fs is not None and c and not any(x.is_zero for x in fs)
            and (one := Z.of([(c, e, fs, atoms)])).terms.keys().isdisjoint(found.terms) and one.size == e]
    if lost and (not found.terms or max(lost) - self.noise >= found.size):
        raise NotCoveredError(spell(line), f"n^({max(lost)})", "its leading terms cancel, and what is left of them is "
                              "random", "write the line so that the cancellation does not occur")
    return self.named(line, found)


@covariance(Moment)
def _moment(self: Covariances, line: Moment):
    args = [self.env[a] for a in line.args]
    dim = self.network.dim_of(line.args[0])
    size = sum((x.size if isinstance(x, Z) else x.power for x in args), ZERO)
    if dim.is_fixed:
        if any(isinstance(x, Z) for x in args):
            raise NotCoveredError(spell(line), line.out, "a sum over outputs stays random as n grows",
                                  "take program.limit")
        first = self.graph.spread([(1.0, [x.node for x in args[:-1]])]) if len(args) > 2 else args[0].node
        last = args[-1].node if len(args) > 1 else self.graph.array([1.0] * int(dim.factor))
        scale = 1 / float(dim.factor) if line.mean else 1.0
        gram = self.graph.gram(first, last, pair=False)
        return Number(size, self.graph.total([(scale, ((gram, 0),))], pair=False))
    growth, factor = (ZERO, 1.0) if line.mean else (dim.growth, float(dim.factor))
    node = self.average(args).get(size)
    if node is None:  # its mean vanishes: it is smaller, and random
        return Number(size + growth - self.noise, None)
    return Number(size + growth, self.graph.total([(factor, ((node, 0),))], pair=False))


@covariance(Outer)
def _outer(self: Covariances, line: Outer):
    raise NotCoveredError(spell(line), line.out, "a network cannot contain an optimizer's update",
                          "write the forward pass only")

