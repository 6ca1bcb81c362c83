"""abc-parametrizations: ``W = n^-a w``, ``w ~ N(0, n^-2b)``, learning rate ``eta n^-c``, for every weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import NamedTuple

from tensorprog.atoms.rule import Rule
from tensorprog.errors import NotCoveredError, ParseError, RecordError

ZERO, HALF, ONE = Fraction(0), Fraction(1, 2), Fraction(1)
FAMILIES = ("sgd", "sign")
#: The growths (fan_in, fan_out) of the weights of a plain network of width n.
ROLES = {"input": (ZERO, ONE), "hidden": (ONE, ONE), "output": (ONE, ZERO)}


class Triple(NamedTuple):
    """The exponents of one weight."""

    a: Fraction
    b: Fraction
    c: Fraction


class Regime(NamedTuple):
    """Where a parametrization stands: the dichotomy of Tensor Programs IV and IVb.

    ``r`` is the exponent with which features move: their change is n^-r.
    """

    stable: bool
    nontrivial: bool
    r: Fraction

    @property
    def verdict(self) -> str:
        """"unstable", "trivial", "kernel" (for sign-like optimizers: the operator regime) or "feature_learning"."""
        if not self.stable:
            return "unstable"
        if not self.nontrivial:
            return "trivial"
        return "feature_learning" if self.r == 0 else "kernel"


#: The growths of the rows and columns of named weights.
Weights = Mapping[str, tuple[Fraction, Fraction]]
#: (growth of fan_in, growth of fan_out) -> exponents; None where the parametrization says nothing.
Formula = Callable[[Fraction, Fraction], tuple | None]


def role(fan_in: Fraction, fan_out: Fraction) -> str:
    """Return the word for tables: "input" (fan_in fixed; biases and gains too), "hidden" or "output"."""
    return "input" if not fan_in else "hidden" if fan_out else "output"


@dataclass(frozen=True, slots=True)
class ABC:
    """A parametrization given by formulas in the growths of a weight's axes.

    Args:
        name: as in ``parametrization(name)``.
        sgd: exponents for optimizers linear in the gradient, from the growths of fan_in and fan_out.
        sign: the same for optimizers of degree 0 in the gradient (Adam, SignSGD).
        table: the published exponents ``{family: {role: (a, b, c)}}``, as printed.
        claims: the published regime of each family, ``{family: Regime}``.
        depth: the number of hidden layers of the networks it is for; None: any.
        sources: keys into docs/refs.bib.

    Raises:
        RecordError: a formula disagrees with the published table; the claimed regime is not what the inequalities of
            Tensor Programs IV (Theorems 3.3, 3.4, Definition 3.2) and IVb (Theorems 2.8.12, 2.8.15) say; no source.

    Example:
        >>> from tensorprog.atoms.parametrizations import parametrization
        >>> parametrization("mup").triple(Fraction(1), Fraction(0), "sgd")
        Triple(a=Fraction(1, 2), b=Fraction(1, 2), c=Fraction(0, 1))
        >>> parametrization("ntp").assign({"W": (Fraction(1), Fraction(1))}, "adam")["W"].c
        Fraction(1, 1)
    """

    name: str
    sgd: Formula | None = field(compare=False, repr=False)
    sign: Formula | None = field(compare=False, repr=False)
    table: Mapping[str, Mapping[str, tuple]] = field(compare=False, repr=False)
    claims: Mapping[str, Regime] = field(compare=False, repr=False)
    depth: int | None = None
    sources: tuple[str, ...] = ()
    lr: Fraction = ZERO

    def __post_init__(self):
        if not self.sources:
            raise self._refuse((), "no source", "add a key of docs/refs.bib to sources")
        for family, rows in self.table.items():
            for word, printed in rows.items():
                found = self.triple(*ROLES[word], family)
                if tuple(found) != tuple(map(Fraction, printed)):
                    raise self._refuse(_text(found), f"its formula disagrees with the table ({family}, {word}), "
                                       f"which has {_text(printed)}", "correct one of them")
        for family in (f for f in FAMILIES if getattr(self, f) is not None):
            found = self.regime(family)
            claimed = self.claims.get(family)
            if found != claimed:
                raise self._refuse(claimed, f"the inequalities for {family} give {found} ({found.verdict})",
                                   "correct the exponents or the claim")

    def triple(self, fan_in: Fraction, fan_out: Fraction, optimizer: Rule | str) -> Triple:
        """Return (a, b, c) of a weight whose fan_in and fan_out grow as n to these powers.

        Args:
            optimizer: a Rule, the name of one, or a family ("sgd", "sign").

        Raises:
            NotCoveredError: the parametrization says nothing about such a weight or optimizer.
        """
        family = family_of(optimizer)
        formula = self.sgd if family == "sgd" else self.sign
        found = formula(Fraction(fan_in), Fraction(fan_out)) if formula is not None else None
        if found is None:
            what = f"{role(fan_in, fan_out)} weights" if formula is not None else f"optimizers like {optimizer}"
            raise NotCoveredError(self.name, what, f"{self.name} is not defined for {what}",
                                  "use another parametrization, or give every weight its a, b, c")
        a, b, c = map(Fraction, found)
        return Triple(a, b, c + self.lr)

    def assign(self, weights: Weights, optimizer: Rule | str) -> dict[str, Triple]:
        """Return (a, b, c) of named weights, given the growths of their rows (fan_out) and columns (fan_in)."""
        return {name: self.triple(cols, rows, optimizer) for name, (rows, cols) in weights.items()}

    @property
    def multipliers(self) -> dict[str, Fraction]:
        """Exponents of declared multipliers: none, so that every one is 0."""
        return {}

    def with_lr(self, c) -> ABC:
        """Return it with the global learning rate times n^-c (an exact rational); its regime is whatever follows."""
        shifted = self.lr + Fraction(c)
        claims = {f: regime({w: _plus(self.triple(*ROLES[w], f), Fraction(c)) for w in self._words}, f, self.depth or 2)
                  for f in FAMILIES if getattr(self, f) is not None}
        return replace(self, table={}, claims=claims, lr=shifted)

    def regime(self, optimizer: Rule | str) -> Regime:
        """Return the regime of a plain network of its depth (two hidden layers if it is for any)."""
        family = family_of(optimizer)
        return regime({w: self.triple(*ROLES[w], family) for w in self._words}, family, self.depth or 2)

    @property
    def _words(self) -> tuple[str, ...]:
        return ("input", "output") if self.depth == 1 else ("input", "hidden", "output")

    @staticmethod
    def from_json(mapping: Mapping) -> Explicit:
        """Return a parametrization from ``{"W1": {"a": "0", "b": "1/2", "c": "1"}, "*": {...}}``.

        Numbers are rationals in strings or whole numbers; a decimal is the rational that it spells. An entry that is
        a number rather than an object is the exponent of a declared multiplier: ``{"alpha": "1/2"}``.

        Raises:
            ParseError: not such a mapping: an entry is missing, unknown, or no rational.

        Example:
            >>> abc = ABC.from_json({"V": {"a": "1/2", "b": 0.5, "c": 0}, "*": {"a": 0, "b": 0, "c": 0}})
            >>> abc.assign({"V": (ZERO, ONE)}, "sgd")["V"].b
            Fraction(1, 2)
        """
        return Explicit.of(mapping)

    def _refuse(self, value, reason: str, fix: str) -> RecordError:
        return RecordError(f"parametrization {self.name!r}", value, reason, fix)

    def __str__(self) -> str:
        return self.name

    def __reduce__(self):
        return _restore, (self.name, self.lr)


def _restore(name: str, lr: Fraction) -> ABC:
    from tensorprog.atoms.parametrizations import parametrization

    record = parametrization(name)
    return record.with_lr(lr) if lr else record


@dataclass(frozen=True, slots=True)
class Explicit:
    """A parametrization that names its weights; "*" stands for all others."""

    entries: tuple[tuple[str, Triple], ...]
    exponents: tuple[tuple[str, Fraction], ...] = ()
    name: str = "explicit"

    @staticmethod
    def of(mapping: Mapping) -> Explicit:
        """See ``ABC.from_json``."""
        if not isinstance(mapping, Mapping):
            raise ParseError("abc file", mapping, "not an object of weights",
                             'write {"W1": {"a": "0", "b": "1/2", "c": "1"}}')
        rows = {str(k): v for k, v in mapping.items() if isinstance(v, Mapping)}
        numbers = {str(k): v for k, v in mapping.items() if not isinstance(v, Mapping)}
        return Explicit(tuple((k, _triple(k, v)) for k, v in rows.items()),
                        tuple((k, _rational(f"abc file: {k}", v)) for k, v in numbers.items()))

    @property
    def multipliers(self) -> dict[str, Fraction]:
        """Exponents of declared multipliers."""
        return dict(self.exponents)

    def assign(self, weights: Weights, optimizer: Rule | str = "sgd") -> dict[str, Triple]:
        """Return (a, b, c) of named weights; raises ParseError for a weight without an entry, or the reverse."""
        table = dict(self.entries)
        for name in table:
            if name != "*" and name not in weights:
                raise ParseError(f"abc file: {name}", name, "the network has no such weight",
                                 "its weights are " + ", ".join(weights))
        missing = [name for name in weights if name not in table and "*" not in table]
        if missing:
            raise ParseError("abc file", missing[0], "this weight has no entry", 'add it, or "*" for all others')
        return {name: table[name] if name in table else table["*"] for name in weights}


def family_of(optimizer: Rule | str) -> str:
    """Return "sgd" or "sign" for a Rule, the name of one, or a family."""
    if isinstance(optimizer, Rule):
        return optimizer.family
    if optimizer in FAMILIES:
        return optimizer
    from tensorprog.atoms.optimizers import optimizer as look_up

    return look_up(optimizer).family


def regime(table: Mapping[str, tuple], family: str, depth: int) -> Regime:
    """Return the regime of a plain network with ``depth`` hidden layers under a table ``{role: (a, b, c)}``.

    SGD: Tensor Programs IV, Definition 3.2, Theorems 3.3 and 3.4, with each layer's own learning rate.
    Sign-like: Tensor Programs IVb, Theorems 2.8.12 and 2.8.15 (faithful: b <= c at the output).

    >>> zero = (ZERO, ZERO, ZERO)
    >>> regime({"input": zero, "hidden": (ZERO, HALF, ZERO), "output": (ZERO, HALF, ZERO)}, "sgd", 2).verdict
    'unstable'
    """
    first, last = Triple(*table["input"]), Triple(*table["output"])
    middle = [Triple(*table["hidden"])] if depth > 1 else []
    inits = first.a + first.b == 0 and all(w.a + w.b == HALF for w in middle) and last.a + last.b >= HALF
    if family == "sgd":
        back = min(last.a + last.b, 2 * last.a + last.c)
        r = min(back - 1 + 2 * w.a + w.c + (w is first) for w in [first, *middle])
        output = 2 * last.a + last.c - 1
        faithful = True
    else:
        r = min(w.a + w.c - (w is not first) for w in [first, *middle])
        output = last.a + last.c - 1
        faithful = last.b <= last.c
    through = last.a + last.b + r - 1
    stable = inits and faithful and r >= 0 and output >= 0 and through >= 0
    return Regime(stable, stable and (output == 0 or through == 0), r)


def _plus(triple: Triple, c: Fraction) -> Triple:
    return Triple(triple.a, triple.b, triple.c + c)


def _text(triple) -> str:
    return f"({', '.join(str(Fraction(x)) for x in triple)})"


def _triple(weight: str, row: Mapping) -> Triple:
    where = f"abc file: {weight}"
    if unknown := [k for k in row if k not in ("a", "b", "c")]:
        raise ParseError(where, unknown[0], "not one of a, b, c", "remove it")
    if missing := [k for k in "abc" if k not in row]:
        raise ParseError(where, missing[0], f"{missing[0]} is missing", f'add "{missing[0]}": "0"')
    return Triple(*(_rational(f"{where}.{k}", row[k]) for k in "abc"))


def _rational(where: str, x) -> Fraction:
    try:
        if isinstance(x, str | float) or (isinstance(x, int | Fraction) and not isinstance(x, bool)):
            # The shortest decimal that names the float is what was written: 0.1 is 1/10.
            return Fraction(repr(x) if isinstance(x, float) else x)
    except (ValueError, ZeroDivisionError):
        pass
    raise ParseError(where, x, "not a rational number", 'write "1/2", or for a weight {"a": "0", "b": "1/2", "c": "1"}')
