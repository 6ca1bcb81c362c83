r"""A limit's derivation, line by line, in the papers' notation: which Gaussian was born where, and which dots came from
which earlier use of the transpose."""

from __future__ import annotations

from typing import Any

from tensorprog.gauss.chain import Number, exact
from tensorprog.interp.limit import Limits, Step
from tensorprog.interp.zspace import ZVar
from tensorprog.program.instructions import Input, MatMul, MatrixType
from tensorprog.program.program import spell

FORMATS = ("text", "latex")


class Writer:
    """Writes Z-variables and numbers as text or LaTeX, with symbols for the sources of a program.

    Example:
        >>> from tensorprog.program.text import parse
        >>> limits = Limits(parse("dim n\nmatrix W : n x n\nvector x : n\ny = W.T @ (W @ x)"))
        >>> Writer(limits).z(limits.z("y"))
        'Z^x + Ẑ^y'
    """

    def __init__(self, limits: Limits, format: str = "text"):
        self.limits, self.latex = limits, format == "latex"
        self.born = {s.name for s in limits.steps if s.rule == "input"}

    def label(self, name: str) -> str:
        """Return a variable's name as it stands in an index."""
        if not self.latex:
            return name
        return r"\mathit{{{}}}".format(name.replace("_", r"\_")) if len(name) > 1 else name

    def source(self, label: str) -> str:
        """Return the symbol of a source: Z^x of an initial vector, the hat of a product."""
        index = self.label(label)
        if label in self.born:
            return f"Z^{{{index}}}" if self.latex else f"Z^{label}"
        return rf"\hat Z^{{{index}}}" if self.latex else f"Ẑ^{label}"

    def number(self, x: Number) -> str:
        """Return an exact number."""
        import sympy

        return sympy.latex(exact(x)) if self.latex else str(exact(x)).replace("**", "^")

    def symbols(self) -> dict[int, Any]:
        """Return a sympy symbol for every source."""
        import sympy

        space = self.limits.space
        return {i: sympy.Symbol(self.source(a.label), real=True) for i, a in enumerate(space.atoms) if a.fn is None}

    def expression(self, z: ZVar) -> Any:
        """Return a Z-variable as a sympy expression in the symbols of its sources."""
        return self.limits.space.express(z, self.symbols())

    def z(self, z: ZVar) -> str:
        """Return a Z-variable."""
        return self.number(self.expression(z))


def derivation(limits: Limits, name: str, format: str = "text") -> list[str]:
    """Return the derivation of a variable of the normal form, a string a line of the program that it needs."""
    writer = Writer(limits, format)
    needed = _needed(limits, name)
    out = []
    for step in limits.steps:
        if step.name in needed:
            out += _told(limits, writer, step)
    return out


def _needed(limits: Limits, name: str) -> set[str]:
    """Return the lines that a variable depends on, those of earlier products that its dots come from among them."""
    needed = {name}
    for step in reversed(limits.steps):
        if step.name in needed:
            needed.update(limits.program.line_of(step.name).args)
            needed.update(use for _, use, _ in step.dots)
    return needed


def _told(limits: Limits, w: Writer, step: Step) -> list[str]:
    line: Any = limits.program.line_of(step.name)
    e = limits.exponent(step.name)
    power = "" if not e else (rf"\; (\text{{times }} n^{{{e}}})" if w.latex else f"   (times n^({e}))")
    head = _spelled(w, line)
    tell = _LATEX if w.latex else _TEXT
    zed = f"Z^{{{w.label(step.name)}}}" if w.latex else f"Z^{step.name}"
    if step.rule == "constant":
        return [tell["constant"].format(head=head, zed=zed, value=w.z(step.result)) + power]
    if step.rule == "input":
        (atom,) = [a for m in step.result.terms for a, _ in m][:1] or (None,)
        if atom is None:
            return [tell["constant"].format(head=head, zed=zed, value=w.z(step.result)) + power]
        space = limits.space
        law = f"N({w.number(space.atoms[atom].mean)}, {w.number(space.covariance(atom, atom))})"
        return [tell["input"].format(head=head, zed=zed, law=law) + power]
    if step.rule == "Moment":
        inside = " ".join(f"Z^{{{w.label(a)}}}" if w.latex else f"Z^{a}" for a in line.args)
        return [tell["moment"].format(head=head, inside=inside, value=w.z(step.result)) + power]
    if step.rule == "CLT":
        return [tell["clt"].format(head=head, value=w.z(step.result)) + power]
    if step.rule == "again":
        return [tell["again"].format(head=head, zed=zed, value=w.z(step.result)) + power]
    if step.rule != "MatMul" or step.hat is None:
        return [tell["value"].format(head=head, zed=zed, value=w.z(step.result)) + power]
    out = [tell["value"].format(head=head, zed=zed, value=w.z(step.result)) + power]
    out += [tell["born"].format(text=t) for t in _hat_law(limits, w, step, line)]
    for weight, use, vector in step.dots:
        earlier = _spelled(w, limits.program.line_of(use))
        out.append(tell["dot"].format(earlier=earlier, weight=w.number(weight), hat=w.source(use),
                                      vector=w.label(line.vector), y=w.label(vector)))
    return out


def _hat_law(limits: Limits, w: Writer, step: Step, line: MatMul) -> list[str]:
    space, hat = limits.space, step.hat
    assert hat is not None
    if not hat.terms:
        return ["the vector is zero in the limit: no Gaussian is born" if not w.latex
                else r"\text{the vector is zero in the limit}"]
    sources = sorted({a for m in hat.terms for a, _ in m})
    if len(sources) > 1 or space.atoms[sources[0]].label != step.name:
        return [f"its Gaussian part is {w.z(hat)}" if not w.latex else rf"\text{{its Gaussian part is }} {w.z(hat)}"]
    i = sources[0]
    symbol = w.source(step.name)
    sim = r"\sim" if w.latex else "~"
    out = [f"{symbol} {sim} N(0, {w.number(space.covariance(i, i))})"]
    for j in range(i):
        if space.atoms[j].fn is None and space.covariance(i, j) != 0:
            pair = f"{symbol}, {w.source(space.atoms[j].label)}"
            value = w.number(space.covariance(i, j))
            out.append(rf"\operatorname{{Cov}}({pair}) = {value}" if w.latex else f"Cov({pair}) = {value}")
    return out


def _spelled(w: Writer, line: Any) -> str:
    if not w.latex:
        return spell(line)
    if isinstance(line, Input):
        return w.label(line.out) if not isinstance(line.type, MatrixType) else line.out
    if isinstance(line, MatMul):
        top = r"^\top" if line.transposed else ""
        return f"{w.label(line.out)} = {w.label(line.matrix)}{top} {w.label(line.vector)}"
    return r"\mathtt{{{}}}".format(spell(line).replace("_", r"\_").replace("^", r"\hat{}").replace("*", r"\,"))


_TEXT = {
    "constant": "{head}:  {zed} = {value}",
    "input": "{head}:  {zed} ~ {law}",
    "moment": "{head}:  E[{inside}] = {value}",
    "clt": "{head}:  Gaussian in the limit, {value}",
    "again": "{head}:  {zed} = {value}   (the same product as before)",
    "value": "{head}:  {zed} = {value}",
    "born": "    born: {text}",
    "dot": "    dot: {weight} Z^{y}, from the earlier {earlier}: E[∂Z^{vector}/∂{hat}] times the variance is {weight}",
}
_LATEX = {
    "constant": r"{head}: \quad {zed} = {value}",
    "input": r"{head}: \quad {zed} \sim {law}",
    "moment": r"{head}: \quad \mathbb{{E}}[{inside}] = {value}",
    "clt": r"{head}: \quad \text{{Gaussian in the limit, }} {value}",
    "again": r"{head}: \quad {zed} = {value} \;\text{{(the same product as before)}}",
    "value": r"{head}: \quad {zed} = {value}",
    "born": r"\qquad \text{{born: }} {text}",
    "dot": r"\qquad \text{{dot: }} {weight}\, Z^{{{y}}} \text{{ from the earlier }} {earlier}, \;"
           r" \mathbb{{E}}[\partial Z^{{{vector}}} / \partial {hat}] \text{{ times the variance }} = {weight}",
}
