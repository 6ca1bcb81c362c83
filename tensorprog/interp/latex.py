r"""Reading a program as mathematics: every line in the notation of the papers, aligned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import Scale
from tensorprog.interp.rules import Rules
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    Joint,
    MatMul,
    MatrixType,
    Moment,
    Nonlin,
    Outer,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program

latex = Rules("latex")

_GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega|"
    "Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)
_SPECIAL = {c: "\\" + c for c in "#$%&_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " "}
_TOP, _ODOT = r"^{\top}", r" \odot "
_KNOWN = {"tanh", "sin", "cos", "exp", "log"}


def to_latex(program: Program, exponents: Mapping[str, Fraction | None] | None = None) -> str:
    r"""Return the program as an ``aligned`` block, one line an instruction, with its order where it is known.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, x = p.matrix("W", n, n), p.vector("x", n)
        >>> h = p.let("h1", W.T @ x)
        >>> print(to_latex(p, {"h1": Fraction(0)}))
        \begin{aligned}
        W &\in \mathbb{R}^{n \times n}, \quad W_{\alpha\beta} \sim \mathcal{N}(0, n^{-1}) \\
        x &\in \mathbb{R}^{n}, \quad x_{\alpha} \sim \mathcal{N}(0, 1) \\
        h_{1} &= W^{\top} x && \Theta(n^{0})
        \end{aligned}
    """
    rows = []
    for line in program.lines:
        row = f"{name(line.out)} &{latex[line](line, program)}"
        if exponents is not None and line.out in exponents:
            e = exponents[line.out]
            row += " && 0" if e is None else rf" && \Theta(n^{{{e}}})"
        rows.append(row)
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def name(variable: str) -> str:
    r"""Return a name: ``x1`` is x_{1}, ``xi`` is \xi, ``_3`` is \tilde{v}_{3}, one with other signs stays as it is.

    >>> name("W2"), name("xi"), name("_3"), name("h#1@2")
    ('W_{2}', '\\xi', '\\tilde{v}_{3}', '\\texttt{h\\#1@2}')
    """
    found = re.fullmatch(r"([A-Za-z]*)_?([0-9]*)", variable)
    if variable.isdecimal():
        return variable
    if found is None or variable.endswith("_"):
        return rf"\texttt{{{text(variable)}}}"
    stem, index = found[1], found[2]
    if not stem:
        return rf"\tilde{{v}}_{{{index}}}"
    spelled = f"\\{stem}" if _GREEK.fullmatch(stem) else stem if len(stem) == 1 else rf"\mathrm{{{stem}}}"
    return spelled + (f"_{{{index}}}" if index else "")


def text(x: str) -> str:
    """Return text with the signs escaped that LaTeX reads."""
    return "".join(_SPECIAL.get(c, c) for c in x)


def scale(x: Scale) -> str:
    """Return a coefficient; of a product of powers of dimensions, powers in braces."""
    parts = [] if x.powers and x.number in (1, -1) else [number(x.number, bracket=bool(x.powers))]
    parts += [name(d) if e == Affine(Fraction(1)) else f"{name(d)}^{{{_exponent(e)}}}" for d, e in x.powers]
    return "-" * bool(x.powers and x.number == -1) + " ".join(parts)


def number(x, *, bracket: bool = False) -> str:
    """Return an exact number."""
    if isinstance(x, Fraction):
        if x.denominator == 1:
            return str(x)
        return rf"{'-' * (x < 0)}\tfrac{{{abs(x.numerator)}}}{{{x.denominator}}}"
    import sympy

    spelled = sympy.latex(x)
    return rf"\left({spelled}\right)" if bracket and x.is_Add else spelled


def _exponent(e: Affine) -> str:
    return re.sub(r"([a-z])\[([^\]]*)\]", lambda m: rf"{m[1]}_{{{name(m[2])}}}", str(e).replace("*", " ")) if any(
        "[" in s for s in e.symbols) else re.sub(r"[A-Za-z_]\w*", lambda m: name(m[0]), str(e).replace("*", r"\,"))


@latex(Input)
def _(line: Input, program: Program) -> str:
    law, kind, out = line.law, line.type, name(line.out)
    if isinstance(kind, VectorType):
        space, entry = rf"\mathbb{{R}}^{{{name(kind.dim.name)}}}", rf"{_braced(out)}_{{\alpha}}"
    elif isinstance(kind, MatrixType):
        space = rf"\mathbb{{R}}^{{{name(kind.rows.name)} \times {name(kind.cols.name)}}}"
        entry = rf"{_braced(out)}_{{\alpha\beta}}"
    else:
        space, entry = r"\mathbb{R}", out
    head = rf"\in {space}, \quad "
    if isinstance(law, Constant):
        return head + f"{entry} = {scale(law.value)}"
    if isinstance(law, Data):
        if law.onehot is not None:
            return head + rf"{out} = e_{{{law.onehot}}}"
        return head + (r"\text{data}" if law.values is None else rf"{out} = ({', '.join(map(number, law.values))})")
    if isinstance(law, Joint):
        cov = r" \\ ".join(" & ".join(map(scale, row)) for row in law.covariance)
        group = ", ".join(f"{_braced(name(v))}_{{\\alpha}}" for v in law.group)
        means = ", ".join(map(scale, law.means))
        return head + rf"({group}) \sim \mathcal{{N}}\bigl(({means}), \begin{{pmatrix}} {cov} \end{{pmatrix}}\bigr)"
    return head + rf"{entry} \sim \mathcal{{N}}({scale(law.mean)}, {scale(law.variance)})"


@latex(MatMul)
def _(line: MatMul, program: Program) -> str:
    matrix = _braced(name(line.matrix))
    return f"= {matrix}{_TOP * line.transposed} {name(line.vector)}"


@latex(Nonlin)
def _(line: Nonlin, program: Program) -> str:
    if isinstance(line.fn, Poly):
        return "= " + _poly(line.fn, line.args, program)
    fn, prefix = line.fn.name, ""
    while fn.startswith("diff_"):
        fn, prefix = fn.removeprefix("diff_"), prefix + r"\Delta "
    order = re.match(r"d([0-9]*)_(?=[a-z])", fn)
    if order:
        fn, times = fn[order.end():], int(order[1] or 1)
    mark = "" if not order else "'" * times if times <= 3 else f"^{{({times})}}"
    spelled = f"\\{fn}" if fn in _KNOWN else rf"\operatorname{{{text(fn)}}}"
    return rf"= {prefix}{spelled}{mark}\left({', '.join(map(name, line.args))}\right)"


@latex(Moment)
def _(line: Moment, program: Program) -> str:
    dim = name(program.dim_of(line.args[0]).name)
    front = rf"\tfrac{{1}}{{{dim}}} " if line.mean else ""
    first, rest = (r"\mathbf{1}", line.args) if len(line.args) == 1 else (name(line.args[0]), line.args[1:])
    return rf"= {front}{_braced(first)}^{{\top}} {_odot(map(name, rest))}"


@latex(Outer)
def _(line: Outer, program: Program) -> str:
    steps = [" + ".join(rf"{name(u)} {_braced(name(v))}^{{\top}}" for u, v in step[:3]) + r" + \dots" * (len(step) > 3)
             for step in line.pairs]
    rule = text(getattr(line.rule, "name", "Q"))
    return rf"= {scale(line.coef)}\,\operatorname{{{rule}}}\left({', '.join(steps)}\right)"


def _braced(x: str) -> str:
    return f"{{{x}}}" if "_" in x or "\\" in x else x


def _odot(factors: Iterable[str]) -> str:
    factors = list(factors)
    return factors[0] if len(factors) == 1 else f"({_ODOT.join(factors)})"


def _poly(poly: Poly, args: tuple[str, ...], program: Program) -> str:
    out, one = "", r"\mathbf{1}" if any(isinstance(program.type_of(a), VectorType) for a in args) else ""
    for coef, powers in poly.terms:
        factors = {True: [], False: []}
        for a, k in zip(args, powers, strict=True):
            if k:
                vector = isinstance(program.type_of(a), VectorType)
                power = f"{_ODOT.strip()} {k}" if vector else str(k)
                factors[vector].append(name(a) if k == 1 else f"{_braced(name(a))}^{{{power}}}")
        vectors = _ODOT.join(factors[True]) or one
        head = scale(coef)
        rest = " ".join([*factors[False], vectors]).strip()
        if rest and head in ("1", "-1"):
            head = head[:-1]
        elif rest and getattr(coef.number, "is_Add", False) and not coef.powers:
            head = number(coef.number, bracket=True)
        term = f"{head} {rest}".strip() if head != "-" else f"-{rest}"
        out += term if not out else f" - {term[1:].strip()}" if term.startswith("-") else f" + {term}"
    return out or "0"
