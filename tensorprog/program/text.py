"""The text form of programs: ``parse`` and ``to_text``, inverse to each other."""

from __future__ import annotations

import re

from tensorprog.errors import NotCoveredError, ParseError
from tensorprog.exponents.scale import Scale
from tensorprog.program.dims import Dim
from tensorprog.program.functions import has_word
from tensorprog.program.grammar import RESERVED
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    Instruction,
    Joint,
    Law,
    MatMul,
    Moment,
    Nonlin,
    Normal,
    Outer,
    ScalarType,
    VectorType,
)
from tensorprog.program.numbers import spelled_number
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell
from tensorprog.program.surface import ZERO

_PLAIN = re.compile(r"[^\W\d]\w*")


def parse(text: str | bytes, filename: str = "<text>") -> Program:
    """Return the program that a text spells.

    Args:
        text: UTF-8, one declaration or definition a line; ``#`` starts a comment.
        filename: what error messages call it.

    Raises:
        ParseError: the text cannot be read; ProgramError: it can, but does not fit together. Both show the line
            and point at the place.

    Example:
        >>> p = parse('''
        ... dim n
        ... matrix W : n x n ~ N(0, 1/n)
        ... vector x : n ~ N(0, 1)
        ... y = W.T @ (W @ x)
        ... q = mean(x * y)
        ... output q
        ... ''')
        >>> p.names
        ('W', 'x', '_1', 'y', 'q')
        >>> parse("dim n\\nvector x : n\\ny = x + z")
        Traceback (most recent call last):
        tensorprog.errors.ProgramError: line 3: y = x + z
                        ^: z is not defined above this line (got 'z')
          fix: define it first, or declare it: vector z : n, exponent z
    """
    from tensorprog.program.reader import Reader

    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = text[: error.start].count(b"\n") + 1
            place = f"{'' if filename == '<text>' else filename + ':'}{line}"
            raise ParseError(
                place, text[error.start : error.start + 1], "the text is not UTF-8", "save the file as UTF-8"
            ) from None
    return Reader(filename).read(text)


def to_text(program: Program) -> str:
    """Return the text that spells a program, one line an instruction; ``parse`` gives the program back.

    Raises:
        NotCoveredError: for what the text form has no words for: Outer lines of unrolled training, functions that
            are not registered, numbers that are not made of rationals, roots and pi.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, x = p.matrix("W", n, n), p.vector("x", n)
        >>> p.output(p.let("q", p.mean((W @ x) ** 2) / 3))
        >>> print(to_text(p))
        dim n
        matrix W : n x n ~ N(0, n^-1)
        vector x : n ~ N(0, 1)
        _1 = W @ x
        _2 = mean(_1 * _1)
        q = 1/3*_2
        output q
        <BLANKLINE>
        >>> parse(to_text(p)) == p
        True
    """
    lines = [declaration(dim) for dim in program.dims.values()]
    if program.unknowns:
        lines.append("exponent " + ", ".join(map(quoted, program.unknowns)))
    lines += [text for line in program.lines if (text := _spelled(program, line))]
    if program.outputs:
        lines.append("output " + ", ".join(map(quoted, program.outputs)))
    if program.loss:
        lines.append(f"loss {program.loss}")
    return "".join(line + "\n" for line in lines)


def quoted(name: str) -> str:
    """Return a name as the text form writes it, in backticks if it is not a plain word.

    >>> quoted("x1"), quoted("h@2"), quoted("mean")
    ('x1', '`h@2`', '`mean`')
    """
    if "`" in name or "\n" in name or not name:
        raise NotCoveredError(name, name, "the text form cannot spell this name", "rename the variable")
    return name if _PLAIN.fullmatch(name) and name not in RESERVED else f"`{name}`"


def axis(dim: Dim) -> str:
    """Return the name of an axis; those of a number are written so."""
    return dim.name if dim.name.isdecimal() and dim == Dim.fixed(dim.name, int(dim.name)) else quoted(dim.name)


def declaration(dim: Dim) -> str:
    """Return the line that declares a dimension."""
    if dim.name == "n" and dim != Dim("n"):
        raise NotCoveredError(dim.declaration(), "n", "in the text form n is the scale itself", "use another name")
    if axis(dim) == dim.name and dim.name.isdecimal():
        return f"dim {dim.name}"
    name = quoted(dim.name)
    return dim.declaration().replace(f"dim {dim.name}", f"dim {name}", 1)


def _spelled(program: Program, line: Instruction) -> str:
    """Return one line of the text form; empty for the later vectors of a joint law."""
    clash = line.out in program.dims or line.out in program.unknowns
    if clash:
        raise NotCoveredError(
            spell(line), line.out, "this variable has the name of a dimension or exponent", "rename it"
        )
    return _LINES[type(line)](program, line)


def _input(program: Program, line: Input) -> str:
    name, kind, law = quoted(line.out), line.type, line.law
    if isinstance(kind, ScalarType):
        if isinstance(law, Constant):
            return f"scalar {name} = {scale_text(law.value)}"
        values = law.values if isinstance(law, Data) else None
        return f"input {name}" + ("" if values is None else f" = {values[0]}")
    if isinstance(kind, VectorType):
        if isinstance(law, Data):
            values = "" if law.values is None else f" = [{', '.join(map(str, law.values))}]"
            return f"input {name} : {axis(kind.dim)}" + (values if law.onehot is None else f" onehot {law.onehot}")
        if isinstance(law, Joint):
            return _joint(program, line, kind.dim, law)
        return f"vector {name} : {axis(kind.dim)} {_law(law)}"
    shape = f"{name} : {axis(kind.rows)} x {axis(kind.cols)}"
    if line.param is None:
        return f"matrix {shape} {_law(law)}"
    param = line.param
    options = [
        f"{key}={value}" for key, value in zip("abc", (param.a, param.b, param.c), strict=True) if value is not None
    ]
    options += [f"init={param.init}"] * (param.init != "normal")
    if param.role:
        if '"' in param.role or "\n" in param.role:
            raise NotCoveredError(spell(line), param.role, "this role cannot be spelled", "use plain words")
        options.append(f'role="{param.role}"')
    options += ["trainable=false"] * (not param.trainable)
    usual = program.default_law(line.out, param) == law
    return f"param {shape}{'' if usual else ' ' + _law(law)}" + (f" [{', '.join(options)}]" if options else "")


def _law(law: Law) -> str:
    if isinstance(law, Constant):
        return f"= {scale_text(law.value)}"
    if not isinstance(law, Normal):
        raise NotCoveredError(
            str(law), type(law).__name__, "this law stands with vectors only", "use N(mean, variance)"
        )
    return f"~ N({scale_text(law.mean)}, {scale_text(law.variance)})"


def _joint(program: Program, line: Input, dim: Dim, law: Joint) -> str:
    if law.index:
        return ""
    where = program.lines.index(line)
    group = tuple(
        Input(name, line.type, Joint(law.group, i, law.means, law.covariance)) for i, name in enumerate(law.group)
    )
    if program.lines[where:where + len(group)] != group:
        raise NotCoveredError(
            spell(line),
            ", ".join(law.group),
            "jointly Gaussian vectors stand together in the text form",
            "declare them with program.vectors",
        )
    means = "0" if all(m == ZERO for m in law.means) else f"[{', '.join(map(scale_text, law.means))}]"
    rows = ", ".join(f"[{', '.join(map(scale_text, row))}]" for row in law.covariance)
    return f"vector {', '.join(map(quoted, law.group))} : {axis(dim)} ~ N({means}, [{rows}])"


def _matmul(program: Program, line: MatMul) -> str:
    return f"{quoted(line.out)} = {quoted(line.matrix)}{'.T' * line.transposed} @ {quoted(line.vector)}"


def _nonlin(program: Program, line: Nonlin) -> str:
    args = tuple(map(quoted, line.args))
    if not isinstance(line.fn, Poly):
        if not has_word(line.fn):
            raise NotCoveredError(spell(line), line.fn.name, "the text form has no word for this function",
                                  "register it, or keep the program in Python")
        return f"{quoted(line.out)} = {line.fn.spelled(*args)}"
    for coef, _ in line.fn.terms:
        scale_text(coef)
    body = line.fn.spelled(*args)
    used = {a for _, powers in line.fn.terms for a, k in zip(line.args, powers, strict=True) if k}
    vectors = [a for a in line.args if isinstance(program.type_of(a), VectorType)]
    if vectors and not used & set(vectors):  # its axis is that of a vector that does not occur
        body = f"0*{quoted(vectors[0])}" if body == "0" else f"{body} + 0*{quoted(vectors[0])}"
    return f"{quoted(line.out)} = {body}"


def _moment(program: Program, line: Moment) -> str:
    return f"{quoted(line.out)} = {'mean' if line.mean else 'sum'}({' * '.join(map(quoted, line.args))})"


def _outer(program: Program, line) -> str:
    raise NotCoveredError(
        spell(line), line.out, "the text form has no optimizer steps", "write the network, not its training"
    )


_LINES = {Input: _input, MatMul: _matmul, Nonlin: _nonlin, Moment: _moment, Outer: _outer}


def scale_text(x: Scale) -> str:
    """Return a coefficient in the text form; raises ProgramError for numbers that it cannot spell."""
    spelled_number(x.number)
    for name in (name for name, _ in x.powers):
        if quoted(name) != name:
            raise NotCoveredError(str(x), name, "a power of this dimension cannot be spelled", "rename the dimension")
    return str(x)
