"""Reading the text form: one pass over the lines, each parsed, then carried out as a declaration or definition."""

from __future__ import annotations

import re
from difflib import get_close_matches
from fractions import Fraction

from tensorprog.atoms.losses import loss
from tensorprog.errors import ParseError, ProgramError, TensorProgError
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.program import build
from tensorprog.program.dims import Dim
from tensorprog.program.evaluate import Evaluator, unquoted
from tensorprog.program.functions import is_function
from tensorprog.program.grammar import RESERVED, STATEMENTS, WORDS, expected, parser
from tensorprog.program.instructions import Constant, Input, MatrixType, Normal, Param, VectorType
from tensorprog.program.numbers import sign
from tensorprog.program.program import Program
from tensorprog.program.surface import ZERO

#: Characters a line; the size of an axis.
MAX_LINE, MAX_SIZE = 100_000, 10**12

_CODE = re.compile(r"""(?:`[^`]*`|"[^"]*"|[^#])*""")
_HEAD = re.compile(r"\s*([^\W\d]\w*)(?!\w)(?!\s*=)")


class Reader(Evaluator):
    """The state of one reading: the program so far, matrices with names of their own, and where we are."""

    def __init__(self, filename: str = "<text>"):
        super().__init__(Program())
        self.file = "" if filename == "<text>" else f"{filename}:"

    def read(self, text: str) -> Program:
        """Read every line; the first error is raised with its line and a caret below the place."""
        self.below = set(re.findall(r"(?m)^[ \t]*(?:[a-z]+[ \t]+)?(\w+)[ \t]*[=:]", text))
        self.program.reserve(re.findall(r"\b_[0-9]+\b", text))
        for number, line in enumerate(re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff")), 1):
            self.column = 1
            try:
                self.line(line)
            except TensorProgError as error:
                place = f"{self.file}{number}: {pointed(line, self.column, len(f'line {self.file}{number}: '))}"
                raise type(error)(place, error.value, error.reason, error.fix) from None
        return self.program

    def line(self, line: str) -> None:
        """Parse one line and carry it out."""
        if len(line) > MAX_LINE:
            raise ParseError("", len(line), f"a line has at most {MAX_LINE} characters", "use several lines")
        code = "".join(_CODE.findall(line)[:1])  # without its comment
        if not code.strip():
            return
        head = _HEAD.match(code)
        start = "assign"
        if head and head[1] in STATEMENTS:
            start, code = head[1], " " * head.end() + code[head.end():]
        self.fold(self.parsed(code, start))

    def parsed(self, code: str, start: str):
        """Return the tree of a line; lark's errors become ours."""
        from lark.exceptions import UnexpectedCharacters, UnexpectedToken

        try:
            return parser().parse(code, start=start)
        except UnexpectedCharacters as error:
            got, wanted, self.column = code[error.pos_in_stream], error.allowed or (), error.pos_in_stream + 1
        except UnexpectedToken as error:
            got, wanted, self.column = error.token, error.accepts or error.expected, (error.token.start_pos or 0) + 1
            if error.token.type == "$END":
                self.column = len(code.rstrip()) + 1
        raise _unexpected(code, start, got, sorted(wanted), self.column)

    # ----------------------------------------------------------------------------------------- statements

    def on_dim(self, name, sign, expr):
        """Declare a dimension: a width, a ratio to others, or a fixed size."""
        self.at(name)
        if name.type == "NUMBER":
            dim = self.on_axis(name)
            if sign is not None and (sign != "=" or self.rational(expr, "a size") != dim.factor):
                raise ParseError(
                    "", str(name), f"the axis {name} has {name} coordinates", f"write: dim {name} = {name}"
                )
            return dim
        name = self.declared(name)
        if sign is None:
            dim = Dim(name)
        elif sign == "=":
            if self.scale(expr, "a size").powers:
                raise ProgramError("", str(expr), "a fixed size has no powers of n", f"write: dim {name} ~ {expr}")
            size = self.rational(expr, "a size")
            if size.denominator != 1 or size <= 0:
                raise ParseError("", str(size), "a fixed axis has a positive whole size", f"dim {name} = 3")
            dim = Dim.fixed(name, int(self.sized(size)))
        else:
            dim = self.growing(name, self.scale(expr, "a size"))
        if name == "n" and dim != Dim("n"):
            raise ParseError("", name, "n is the scale itself", "use another name for this axis")
        return self.program.add_dim(dim)

    def growing(self, name: str, size: Scale) -> Dim:
        """Return the dimension of a size in powers of n and of other dimensions."""
        growth, factor = Fraction(0), size
        for other, power in size.powers:
            dim = self.program.dims.get(other, Dim("n"))
            if power.terms:
                raise ParseError("", str(power), "the growth of an axis is a rational number", f"dim {name} ~ n^(1/2)")
            growth += dim.growth * power.const
            factor = factor / Scale.power(other, power) * Scale(dim.factor) ** power.const
        if not isinstance(factor.number, Fraction):
            raise ParseError("", str(factor), "the factor of an axis is a rational number", f"dim {name} ~ 3/2*n")
        if growth > 16:
            raise ParseError("", str(growth), "an axis grows at most like n^16", "use a smaller power")
        return Dim(name, growth, self.sized(factor.number))

    def sized(self, x: Fraction) -> Fraction:
        """Return the size or the ratio of an axis; raises if no computer holds it."""
        if max(x.numerator, x.denominator) > MAX_SIZE:
            raise ParseError("", str(x)[:40], f"sizes and ratios of axes go up to {MAX_SIZE}", "use a power of n")
        return x

    def on_matrix(self, names, colon, rows, times, cols, given, expr=None):
        """Declare matrices of independent entries, or constant ones."""
        self.cross(times)
        law = self.law(given, expr, cols)
        for name in names:
            self.program.add(Input(self.declared(name), MatrixType(rows, cols), law))

    def law(self, given, expr, cols=None):
        """Return the law that a declaration ends in; without one the variance is 1, of a matrix 1/cols."""
        if expr is not None:
            return Constant(self.scale(expr, "a constant"))
        if given is None:
            return Normal(ZERO, ONE if cols is None else Scale.power(cols.name, -1))
        if isinstance(given[1], list):
            raise ParseError(
                "", "[[...]]", "only vectors are jointly Gaussian", "give a matrix one variance: N(0, 1/n)"
            )
        if isinstance(given[0], list):
            raise ParseError("", "[...]", "several means need a covariance", "write N([0, 1], [[1, 0], [0, 1]])")
        mean, variance = (self.scale(x, what) for x, what in zip(given, ("a mean", "a variance"), strict=True))
        return Normal(mean, variance_of(variance))

    def on_vector(self, names, colon, dim, given, expr=None):
        """Declare vectors: independent, jointly Gaussian or constant."""
        plain = [self.declared(name) for name in names]
        if given is not None and isinstance(given, tuple) and isinstance(given[1], list):
            means, covariance = given
            means = means if isinstance(means, list) else [means] * len(plain)
            self.program.vectors(
                plain,
                dim,
                covariance=[[self.scale(x, "a covariance") for x in row] for row in covariance],
                means=[self.scale(x, "a mean") for x in means],
            )
            return
        law = self.law(given, expr)
        for name in plain:
            self.program.add(Input(name, VectorType(dim), law))

    def on_scalar(self, name, sign, expr):
        """Declare a constant number; without one it is data."""
        plain = self.declared(name)
        if expr is None:
            self.program.data(plain)
        elif self.constant_of(expr) is None:
            raise ProgramError(
                "", str(expr), "a declared scalar is a number times powers of dimensions", f"write: {plain} = {expr}"
            )
        else:
            self.program.scalar(plain, self.scale(expr, "a scalar"))

    def on_param(self, names, colon, rows, times, cols, law, options):
        """Declare trainable matrices."""
        self.cross(times)
        options = options or {}
        for name in names:
            plain = self.declared(name)
            if law is None:
                self.program.param(plain, rows, cols, **options)
            else:
                self.program.add(Input(plain, MatrixType(rows, cols), self.law(law, None), Param(**options)))

    def on_options(self, bracket, *options):
        """Return the options of a parameter."""
        pairs = [x for x in options if isinstance(x, tuple)]
        if len(dict(pairs)) < len(pairs):
            raise ParseError("", ", ".join(k for k, _ in pairs), "an option occurs twice", "give each option once")
        return dict(pairs)

    def on_option(self, key, sign, value):
        """Return one option: a, b, c, init, role or trainable."""
        self.at(key)
        word = str(value).strip('"') if isinstance(value, str) else None
        if key in ("a", "b", "c"):
            return str(key), self.rational(value, f"the exponent {key}")
        if key == "init" and word in ("normal", "zero", "one"):
            return "init", word
        if key == "role" and word is not None:
            return "role", word
        if key == "trainable" and word in ("true", "false"):
            return "trainable", word == "true"
        known = ["a", "b", "c", "init", "role", "trainable"]
        if key not in known:
            raise ParseError("", str(key), f"unknown option {key}", "use one of: " + ", ".join(known))
        raise ParseError("", word if word is not None else str(value), f"{key} does not take this value",
                         {"init": "use init=normal, init=zero or init=one", "role": "use role=hidden"}.get(
                             str(key), "use trainable=true or trainable=false"))

    def on_exponent(self, names):
        """Declare unknown exponents."""
        for name in names:
            self.program.exponent(self.declared(name))

    def on_input(self, names, colon, dim, value):
        """Declare data along a fixed axis, or a number."""
        for name in names:
            plain = self.declared(name)
            if isinstance(value, int):
                self.program.data(plain, dim, onehot=value)
            elif value is None:
                self.program.data(plain, dim)
            else:
                self.program.data(plain, dim, values=[self.rational(x, "a datum") for x in value])

    def on_onehot(self, word, index):
        """Return the index of a one-hot vector."""
        self.at(word)
        if word != "onehot":
            raise ParseError("", str(word), f"unexpected {word}", "write: input tok : vocab onehot 3")
        return self.whole(index, "an index")

    def on_data(self, sign, values):
        """Return the coordinates of data."""
        return values if isinstance(values, list) else [values]

    def on_output(self, names):
        """Mark outputs."""
        for name in names:
            self.at(name)
            self.program.output(unquoted(name))

    def on_loss(self, name):
        """Name the loss."""
        self.at(name)
        if self.program.loss is not None:
            raise ParseError("", str(name), "the loss is declared already", "keep one of the two lines")
        self.program.loss = loss(str(name)).name

    def on_assign(self, name, sign, value):
        """Write the line of a definition; a matrix expression only gets a name."""
        plain = self.declared(name)
        if isinstance(value, build.Matrix):
            self.matrices[plain] = value
            return
        self.at(sign)
        self.program.let(plain, self.value(value))

    # ---------------------------------------------------------------------------------- pieces of statements

    def on_names(self, *tokens):
        """Return the names of a list."""
        return [t for t in tokens if t.type == "NAME"]

    def on_axis(self, token) -> Dim:
        """Return the dimension of a name; a number is a fixed axis of that size."""
        self.at(token)
        if token.type == "NUMBER":
            size = self.whole(token, "a size")
            if size == 0:
                raise ParseError("", "0", "an axis needs a positive size", "use 1 or more")
            return self.program.add_dim(Dim.fixed(str(size), size))
        dim = self.program.dims.get(unquoted(token))
        if dim is None:
            raise ProgramError("", str(token), f"dimension {token} is not declared", f"write above: dim {token}")
        return dim

    def on_law(self, tilde, kind, *parts):
        """Return the mean and the variance (or covariance) of a Gaussian law."""
        self.at(kind)
        if kind != "N":
            raise ParseError("", str(kind), f"unknown law {kind}", "use N(mean, variance)")
        mean, variance = (x for x in parts if getattr(x, "type", "") not in ("LPAR", "COMMA", "RPAR"))
        return mean, variance

    def cross(self, token) -> None:
        """Check the x of a shape."""
        if token != "x":
            self.at(token)
            raise ParseError("", str(token), "a shape is rows x cols", "write: matrix W : n x n")

    def declared(self, token) -> str:
        """Return a name that is free, or raise."""
        self.at(token)
        name = unquoted(token)
        if name in RESERVED and not token.startswith("`"):
            raise ParseError("", name, f"{name} is a reserved word", "use another name")
        if name in self.program or name in self.program.dims or name in self.matrices or name in self.program.unknowns:
            raise ProgramError("", name, f"{name} is defined already", "use a new name")
        return name


def variance_of(x: Scale) -> Scale:
    """Return a variance; raises ProgramError if it is negative."""
    if sign(x.number) < 0:
        raise ProgramError("", str(x), "a variance is not negative", "give the variance: N(0, 1/n)")
    return x


def pointed(line: str, column: int, indent: int) -> str:
    """Return a line with a caret below a column; of a long line the part around it."""
    column = min(max(column, 1), len(line) + 1)
    start = len(line) - len(line.lstrip())
    if len(line) > 160:
        start = max(start, min(column - 60, len(line) - 120))
    shown = (
        ("..." if start > 60 else "") + line[start : start + 120].rstrip() + ("..." if len(line) > start + 120 else "")
    )
    shift = column - 1 - start + (3 if start > 60 else 0)
    clean = "".join(c if c.isprintable() else "?" for c in shown)
    return clean + "\n" + " " * (indent + max(shift, 0)) + "^"


def _unexpected(code: str, start: str, got, wanted: list[str], column: int) -> ParseError:
    """Return the error of a line that does not fit the grammar."""
    kind, before = getattr(got, "type", ""), code[:column - 1].rstrip()
    last, head = re.search(r"\w+$", before), _HEAD.match(code)
    near = get_close_matches(head[1], STATEMENTS, 1, 0.6) if head and start == "assign" else []
    operand = kind in ("NAME", "NUMBER", "LPAR") and "STAR" in wanted
    if near and "EQUALS" in wanted:
        fix = f"did you mean {near[0]}? A definition is: name = expression"
    elif start == "assign" and "EQUALS" in wanted:
        fix = "a definition is: name = expression"
    elif operand and last and (last[0] in WORDS or is_function(last[0])):
        fix = f"write {last[0]}(...)"
    elif operand:
        fix = "write * between factors, and @ between a matrix and a vector"
    elif got == "." and last:
        fix = f"the transpose is {last[0]}.T; names have no dots"
    else:
        fix = f"expected {expected(wanted)}"
    reason = "the line ends too early" if kind == "$END" else f"unexpected {str(got)!r}"
    return ParseError("", "" if kind == "$END" else str(got), reason, fix)
