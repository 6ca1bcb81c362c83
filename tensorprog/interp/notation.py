r"""How the papers write things, as text or LaTeX: ``\hat Z``, ``\dot Z``, expectations, a program's expressions.

Lines without a name of their own are written out wherever they are used: ``y = W.T @ relu(W @ x)`` is
``y = Wᵀ relu(Wx)``, and the Gaussian of its inner product is Z^{Wx}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any

from tensorprog.atoms.diff import Diff
from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import Scale
from tensorprog.gauss.chain import Number, exact
from tensorprog.interp import latex as tex
from tensorprog.interp.limit import Limits
from tensorprog.interp.zvar import ZVar
from tensorprog.program.instructions import Constant, Input, MatMul, MatrixType, Moment, Nonlin, VectorType
from tensorprog.program.poly import Poly

FORMATS = ("text", "latex")


@dataclass(frozen=True)
class Marks:
    """The signs of a format; ``{}`` stands for what they are put on."""

    z: str
    hat: str
    dot: str
    limit: str
    partial: str
    expect: str
    normal: str
    cov: str
    power: str
    round: str
    words: str
    follows: str = " ~ "
    about: str = " ≈ "
    times: str = "*"
    transpose: str = "ᵀ"


TEXT = Marks(z="Z^{}", hat="Ẑ^{}", dot="Ż^{}", limit="{}°", partial="∂{}/∂{}", expect="E[{}]", normal="N({}, {})",
             cov="Cov({}, {})", power="{}^{}", round="({})", words="{}")
LATEX = Marks(z="Z^{{{}}}", hat=r"\hat{{Z}}^{{{}}}", dot=r"\dot{{Z}}^{{{}}}", limit=r"\mathring{{{}}}",
              partial=r"\partial {} / \partial {}", expect=r"\mathbb{{E}}\left[{}\right]",
              normal=r"\mathcal{{N}}\left({}, {}\right)", cov=r"\operatorname{{Cov}}\left({}, {}\right)",
              power="{{{}}}^{{{}}}", round=r"\left({}\right)", words=r"\text{{{}}}", follows=r" \sim ",
              about=r" \approx ", times=r" \odot ", transpose=r"^{\top}")

#: What binds: a sum, a product, a power or a function; looser parts in tighter ones get parentheses.
SUM, PRODUCT, POWER, WHOLE = range(4)
Spelled = tuple[str, int]

#: An expression without a name that is longer than this gets one; products, which become indices, sooner.
LONG, LONG_INDEX = 48, 20
#: A rational of more signs than this is written in digits, and so is a named quantity of more operations.
LONG_NUMBER, LONG_FORMULA = 12, 30
_NAMELESS = re.compile("_[a-z0-9]*[0-9]")
_PLAIN = re.compile(r"\w+")


class Writer:
    """Writes the variables, the Z-variables and the numbers of a program's limits.

    Args:
        limits: the limits of a program.
        format: "text" or "latex".

    Attributes:
        plain: the writer of the same limits as text.
        mentioned: the named quantities in the numbers written so far.

    Example:
        >>> from tensorprog.program.text import parse
        >>> limits = Limits(parse("dim n\\nmatrix W : n x n\\nvector x : n\\ny = W.T @ relu(W @ x)"))
        >>> w = Writer(limits)
        >>> w.definition("y"), w.z(limits.z("y"))
        ('y = Wᵀ relu(Wx)', 'Ẑ^y + 1/2 Z^x')
        >>> Writer(limits, "latex").definition("y")
        'y = W^{\\\\top} \\\\operatorname{relu}\\\\left(W x\\\\right)'
    """

    def __init__(self, limits: Limits, format: str = "text"):
        self.limits, self.latex = limits, format == "latex"
        self.marks = LATEX if self.latex else TEXT
        self.given, self.program = limits.form.source.program, limits.program
        self.inputs = {s.name for s in limits.steps if s.rule == "input" and len(s.result.terms) == 1}
        self.mentioned: dict[Any, None] = {}
        self.gaussians = {s: f"G{i + 1}" for i, s in enumerate(s for s, t in limits.randoms if s == t)}
        self.aliases: dict[str, str] = {}
        self.plain = Writer(limits) if self.latex else self
        self.aliases = self.plain.aliases if self.latex else self._aliases()

    def _aliases(self) -> dict[str, str]:
        for line in self.program.lines:
            if not self.nameless(line.out) or not isinstance(self.program.type_of(line.out), VectorType):
                continue
            most = LONG if isinstance(line, Nonlin) else LONG_INDEX
            if isinstance(self._line(line.out), Input):  # the probing vector of a trace
                stem = "" if isinstance(line, Input) and isinstance(line.law, Constant) else "g"
            else:
                stem = "v" if len(self.spelled(line.out)[0]) > most else ""
            if stem:
                names = (f"{stem}{k or ''}" for k in count(stem == "v"))
                taken = {*self.program.names, *self.aliases.values()}
                self.aliases[line.out] = next(name for name in names if name not in taken)
        return self.aliases

    # ------------------------------------------------------------------------------------------------ names

    def nameless(self, name: str) -> bool:
        """Return whether a variable is written out where it is used."""
        return bool(_NAMELESS.fullmatch(name)) and name not in self.aliases

    def label(self, name: str) -> str:
        """Return a variable as it stands in a formula: by its name, or written out."""
        if self.nameless(name):
            return self.spelled(name)[0]
        name = self.aliases.get(name, name)
        if not self.latex:
            return name
        found = re.fullmatch(r"([A-Za-z]\w*)\[(\w+)\]", name)  # a coordinate, or a column
        if found:
            return rf"{{{tex.name(found[1])}}}_{{[{found[2]}]}}"
        return rf"\mathtt{{{tex.text(name)}}}" if not re.fullmatch("[A-Za-z]+_?[0-9]*", name) else tex.name(name)

    def on(self, mark: str, name: str) -> str:
        """Return a mark with a variable above it: Z^x, or Z^{Wx}."""
        label = self.label(name)
        plain = self.latex or (not self.nameless(name) and _PLAIN.fullmatch(label))
        return mark.format(label if plain else f"{{{label}}}")

    def source(self, name: str) -> str:
        """Return the symbol of a Gaussian source: Z^x of an initial vector, a hat of all others."""
        return self.on(self.marks.z if name in self.inputs else self.marks.hat, name)

    def definition(self, name: str) -> str:
        """Return a variable's line: ``y = Wᵀ relu(Wx)``; of one without a name only the right side."""
        line: Any = self._line(name)
        if isinstance(line, Input):
            return self._input(line)
        right, _ = self._right(line, self._line, self.spelled)
        return right if self.nameless(name) else f"{self.label(name)} = {right}"

    def _input(self, line: Input) -> str:
        if not isinstance(line.type, MatrixType):
            return self.label(line.out)
        rows, cols = (self.label(d.name) for d in (line.type.rows, line.type.cols))
        return rf"{self.label(line.out)} \in \mathbb{{R}}^{{{rows} \times {cols}}}" if self.latex else \
            f"{self.label(line.out)} : {rows} x {cols}"

    def _line(self, name: str) -> Any:
        line = (self.given if name in self.given else self.program).line_of(name)
        first = self.limits.form.source.source
        if isinstance(line, Input) and name in first and isinstance(first.line_of(name), MatMul):
            return first.line_of(name)  # a product with data became a Gaussian vector of its own
        return line

    # ------------------------------------------------------------------------------------------ expressions

    def spelled(self, name: str) -> Spelled:
        """Return a variable in terms of named ones, as they stand in the program."""
        if not self.nameless(name):
            return self.label(name), WHOLE
        return self._right(self._line(name), self._line, self.spelled)

    def zed(self, name: str) -> Spelled:
        """Return Z of a variable in terms of those of named ones; of a scalar its limit."""
        line: Any = self.program.line_of(name)
        if isinstance(line, Input) and isinstance(line.law, Constant):
            return self.brief(line.law.value.number), _tightness(line.law.value.number)
        if not self.nameless(name):
            vector = isinstance(self.program.type_of(name), VectorType)
            return (self.on(self.marks.z, name) if vector else self.marks.limit.format(self.label(name))), WHOLE
        return (self.on(self.marks.z, name), WHOLE) if isinstance(line, MatMul | Input) else self.inside(name)

    def inside(self, name: str) -> Spelled:
        """Return the right side of a line in terms of Z-variables."""
        line: Any = self.program.line_of(name)
        if isinstance(line, Moment) and not line.mean:
            return self.number(self.limits.scalar(name)), WHOLE
        return self._right(line, self.program.line_of, self.zed)

    def _right(self, line: Any, line_of: Callable, part: Callable[[str], Spelled]) -> Spelled:
        vectors = part == self.zed  # Z-variables, not variables
        if isinstance(line, MatMul):
            matrix, (x, tight) = self.label(line.matrix), part(line.vector)
            top = self.marks.transpose if line.transposed else ""
            chained = self.nameless(line.vector) and isinstance(line_of(line.vector), MatMul)
            x = x if chained else self._within(x, tight, WHOLE)
            tight_set = len(matrix) == 1 and (len(x) == 1 or chained and " " not in x)
            return f"{matrix}{top}{'' if tight_set and not self.latex else ' '}{x}", PRODUCT
        if isinstance(line, Moment):
            return (self.expectation(line.args) if vectors else self._average(line, part)), WHOLE
        if isinstance(line, Input):
            law: Any = line.law  # of a constant: random inputs have names
            return self.scale(law.value), _tightness(law.value.number)
        if isinstance(line.fn, Poly):
            return self._polynomial(line.fn, line.args, part, vectors)
        if isinstance(line.fn, Diff):
            return self._difference(line, part)
        return self.function(line.fn, [part(a)[0] for a in line.args]), WHOLE

    def function(self, fn: Any, args: Sequence[str]) -> str:
        """Return ``fn(args)``; derivatives with primes."""
        name = getattr(fn, "name", "f")
        order = re.match(r"d([0-9]*)_(?=[a-z])", name)
        times = int(order[1] or 1) if order else 0
        name = name[order.end():] if order else name
        mark = "'" * times if times <= 3 else f"^{{({times})}}" if self.latex else f"^({times})"
        if self.latex:
            known = name in ("tanh", "sin", "cos", "exp", "log")
            name = f"\\{name}" if known else rf"\operatorname{{{tex.text(name)}}}"
        return name + mark + self.marks.round.format(", ".join(args))

    def expectation(self, names: Sequence[str]) -> str:
        """Return E[Z^u Z^v ...]."""
        counts = {name: names.count(name) for name in names}
        outer = PRODUCT if len(counts) > 1 else SUM
        return self.marks.expect.format(" ".join(
            self._power(*self.zed(name), k) if k > 1 else self._within(*self.zed(name), outer)
            for name, k in counts.items()))

    def _average(self, line: Moment, part: Callable[[str], Spelled]) -> str:
        outer = PRODUCT if len(line.args) > 1 else SUM
        inside = self.marks.times.join(self._within(*part(a), outer) for a in line.args)
        word = "mean" if line.mean else "sum"
        return rf"\operatorname{{{word}}}\left({inside}\right)" if self.latex else f"{word}({inside})"

    def _difference(self, line: Nonlin, part) -> Spelled:
        fn: Any = line.fn
        k = fn.fn.arity
        before = [part(a) for a in line.args[:k]]
        after = [f"{x} + {dx}" for (x, _), (dx, _) in zip(before, map(part, line.args[k:]), strict=True)]
        return f"{self.function(fn.fn, after)} - {self.function(fn.fn, [x for x, _ in before])}", SUM

    def _polynomial(self, fn: Poly, args: Sequence[str], part: Callable[[str], Spelled], vectors: bool) -> Spelled:
        terms = []
        for coef, powers in fn.terms:
            factors: dict[bool, list[Spelled]] = {False: [], True: []}
            for a, p in zip(args, powers, strict=True):
                x = part(a)
                if p and x[0] != "1":
                    along = isinstance(self._line_type(a), VectorType)
                    factors[along].append((self._power(*x, p), POWER) if p > 1 else x)
            if vectors:
                terms.append(self.term(Scale.of(coef.number), [*factors[False], *factors[True]]))
                continue
            if len(factors[True]) > 1:
                factors[True] = [(self.marks.times.join(self._within(*f, PRODUCT) for f in factors[True]), PRODUCT)]
            terms.append(self.term(coef, [*factors[False], *factors[True]], r" \, " if self.latex else "*"))
        return self.total(terms)

    def _line_type(self, name: str) -> Any:
        return (self.given if name in self.given else self.program).type_of(name)

    def term(self, coef: Scale, factors: Sequence[Spelled], times: str = " ") -> Spelled:
        """Return a coefficient times factors."""
        head = self.scale(coef)
        if not factors:
            return head, _tightness(coef.number)
        if len(factors) == 1 and head == "1":
            return factors[0]
        body = times.join(self._within(*f, PRODUCT) for f in factors)
        if head in ("1", "-1"):
            return head[:-1] + body, PRODUCT
        if _tightness(coef.number) == SUM:
            head = self.marks.round.format(head)
        return head + (r" \, " if self.latex else " " if times == " " else times) + body, PRODUCT

    def total(self, terms: Sequence[Spelled]) -> Spelled:
        """Return a sum."""
        if len(terms) == 1:
            return terms[0]
        out = ""
        for text, _ in terms:
            out += (f" - {text[1:]}" if text.startswith("-") else f" + {text}") if out else text
        return out or "0", SUM

    def _power(self, x: str, tight: int, k: int) -> str:
        bare = tight == WHOLE and ("^" not in x or x[-1] in ")]")  # no second superscript
        return self.marks.power.format(x if bare else self.marks.round.format(x), k)

    def _within(self, x: str, tight: int, outer: int) -> str:
        return x if tight >= outer else self.marks.round.format(x)

    # ---------------------------------------------------------------------------------------------- numbers

    def number(self, x: Number) -> str:
        """Return an exact number, and note what named quantities are in it."""
        import sympy

        x = exact(x)
        self._mention(x)
        known = {s: sympy.Symbol(g) for s, g in self.gaussians.items()}
        x = x.xreplace(known) if known else x
        return sympy.latex(x) if self.latex else str(x).replace("**", "^")

    def digits(self, x: Number) -> str:
        """Return a number to six digits; nothing if its formula shows them, or has no value."""
        if isinstance(x, Fraction | int):
            return f"{float(x):.6g}" if len(str(x)) > LONG_NUMBER else ""
        return "" if self.limits.chain.is_free(x) else f"{float(self.limits.chain.value(x)):.6g}"

    def opaque(self, x: Number) -> bool:
        """Return whether the formula of a number tells less than its digits: integrals are in it, or it is endless."""
        if isinstance(x, Fraction | int):
            return len(str(x)) > LONG_NUMBER
        return not self.limits.chain.is_free(x) and (self.limits.chain.has_integral(x) or len(str(x)) > 2 * LONG)

    def brief(self, x: Number) -> str:
        """Return a number: exactly, or to six digits where the formula tells less."""
        return self.digits(x) if self.opaque(x) else self.number(x)

    def equals(self, *parts: str, value: Number) -> str:
        """Return formulas and the number that they are equal to, each once: ``E[(Z^x)^2] = 1/2``."""
        exactly = "" if self.opaque(value) else self.number(value)
        shown = " = ".join(dict.fromkeys(p for p in (*parts, exactly) if p))
        digits = self.digits(value)
        return shown + (self.marks.about + digits if digits and shown else digits)

    def scale(self, x: Scale) -> str:
        """Return a coefficient with powers of dimensions, unknown exponents at their values."""
        values = self.limits.form.values
        powers = ((d, e.value(values)) for d, e in x.powers)
        x = Scale(x.number, tuple((d, Affine.of(e)) for d, e in powers if e))
        if isinstance(x.number, Fraction) and self.opaque(x.number):
            rest = Scale(Fraction(1), x.powers)
            return self.digits(x.number) + ((r" \, " if self.latex else "*") + self.scale(rest) if x.powers else "")
        return str(x) if not self.latex else tex.scale(x).replace(r"\tfrac", r"\frac")

    def _mention(self, x: Any) -> None:
        for symbol in sorted(x.free_symbols, key=str):
            if symbol in self.limits.chain.definitions and symbol not in self.mentioned:
                if self.written(symbol):
                    self._mention(self.limits.chain.definitions[symbol])
                self.mentioned.setdefault(symbol)

    def written(self, symbol: Any) -> bool:
        """Return whether a named quantity is explained by its formula; a long one is by its digits."""
        chain = self.limits.chain
        return chain.is_free(symbol) or chain.definitions[symbol].count_ops() <= LONG_FORMULA

    def coefficient(self, x: Number, factor: str) -> str:
        """Return a number times a factor."""
        return self.term(Scale.of(x), [(factor, WHOLE)])[0] if isinstance(x, Fraction) else self._symbolic(x, factor)

    def _symbolic(self, x: Number, factor: str) -> str:
        head = self.brief(x)
        head = self.marks.round.format(head) if _tightness(x) == SUM else head
        return head + (r" \, " if self.latex else " ") + factor

    # ------------------------------------------------------------------------------------------ Z-variables

    def z(self, z: ZVar) -> str:
        """Return a Z-variable in terms of Gaussian sources: the newest hats first, initial vectors last."""
        return self._z(z)[0]

    def _z(self, z: ZVar) -> Spelled:
        def place(term):
            return [(self.limits.space.atoms[a].label in self.inputs, -a if self.limits.space.atoms[a].label
                     not in self.inputs else a) for a, _ in term[0]] or [(True, len(self.limits.space.atoms))]

        terms = []
        for m, c in sorted(z.terms.items(), key=place):
            factors = [(self._power(*self._atom(a), p), POWER) if p > 1 else self._atom(a) for a, p in m]
            if isinstance(c, Fraction) or not factors:
                terms.append(self.term(Scale.of(c), factors) if isinstance(c, Fraction) else
                             (self.brief(c), _tightness(c)))
            else:
                terms.append((self._symbolic(c, " ".join(self._within(*f, PRODUCT) for f in factors)), PRODUCT))
        return self.total(terms)

    def _atom(self, a: int) -> Spelled:
        atom = self.limits.space.atoms[a]
        if atom.fn is None:
            return self.source(atom.label), WHOLE
        return self.function(atom.fn, [self._z(x)[0] for x in atom.args]), WHOLE

    def expression(self, z: ZVar) -> Any:
        """Return a Z-variable as a sympy expression in the symbols of its sources."""
        import sympy

        space = self.limits.space
        symbols = {i: sympy.Symbol(self.source(a.label), real=True) for i, a in enumerate(space.atoms) if a.fn is None}
        return space.express(z, symbols)


def _tightness(x: Number) -> int:
    return SUM if getattr(x, "is_Add", False) else PRODUCT
