"""Readings of a program for people: a typed listing, LaTeX, HTML, Mermaid, DOT and a networkx graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from html import escape
from typing import TYPE_CHECKING

from tensorprog.errors import NotCoveredError
from tensorprog.interp.latex import to_latex
from tensorprog.interp.rules import Rules
from tensorprog.program.instructions import Constant, Data, Input, Joint, MatMul, Moment, Nonlin, Outer
from tensorprog.program.program import Program, spell

if TYPE_CHECKING:
    import networkx

Exponents = Mapping[str, Fraction | None] | None

#: What stands to the right of the name: a law, or a definition.
definition = Rules("show")


def show(program: Program, exponents: Exponents = None, format: str = "text") -> str:
    """Return a program as text for people.

    Args:
        program: any program, unrolled training programs included.
        exponents: the power of n of variables that have one; None is the exponent of zero.
        format: "text", "latex", "html", "mermaid" or "dot".

    Raises:
        NotCoveredError: if there is no such format.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, x = p.matrix("W", n, n), p.vector("x", n)
        >>> s = p.let("s", p.mean((W @ x) * x))
        >>> print(show(p, {"x": Fraction(0), "_1": Fraction(0), "s": Fraction(-1, 2)}))
        dim n
        W  : matrix n x n             ~ N(0, n^-1)
        x  : vector n      n^0        ~ N(0, 1)
        _1 : vector n      n^0        = W @ x
        s  : scalar        n^(-1/2)   = mean(_1 * x)
    """
    if format not in FORMATS:
        raise NotCoveredError(f"format={format}", format, "no such format", "use " + ", ".join(FORMATS))
    return FORMATS[format](program, exponents)


def order(exponents: Exponents, name: str) -> str:
    """Return the order of a variable, ``n^(1/2)``; "0" if it is zero, nothing if it is not known."""
    if exponents is None or name not in exponents:
        return ""
    e = exponents[name]
    return "0" if e is None else f"n^{e}" if Fraction(e).denominator == 1 else f"n^({e})"


def to_listing(program: Program, exponents: Exponents = None) -> str:
    """Return the typed listing: name, type, order and definition in columns."""
    rows = [(line.out, str(line.type if isinstance(line, Input) else program.type_of(line.out)),
             order(exponents, line.out), definition[line](line)) for line in program.lines]
    names, types, orders = (max((len(row[i]) for row in rows), default=0) for i in range(3))
    gap = "   " if orders else "  "
    lines = [d.declaration() for d in program.dims.values()]
    lines += [f"{a:{min(names, 24)}} : {t:{types}}  {o:{orders}}{gap}{rhs}".rstrip() if orders
              else f"{a:{min(names, 24)}} : {t:{types}}  {rhs}" for a, t, o, rhs in rows]
    lines += [f"exponent {', '.join(program.unknowns)}"] * bool(program.unknowns)
    lines += [f"output {', '.join(program.outputs)}"] * bool(program.outputs)
    lines += [f"loss {program.loss}"] * bool(program.loss)
    return "\n".join(lines)


@definition(Input)
def _(line: Input) -> str:
    law = line.law
    if isinstance(law, Constant):
        rhs = f"= {law.value}"
    elif isinstance(law, Data):
        rhs = f"one-hot {law.onehot}" if law.onehot is not None else "data" if law.values is None else \
            f"= [{', '.join(map(str, law.values))}]"
    elif isinstance(law, Joint):
        rows = ", ".join(f"[{', '.join(map(str, row))}]" for row in law.covariance)
        rhs = f"component {law.index} of ({', '.join(law.group)}) ~ N([{', '.join(map(str, law.means))}], [{rows}])"
    else:
        rhs = f"~ N({law.mean}, {law.variance})"
    if line.param is None:
        return rhs
    given = [
        f"{k}={v}" for k, v in zip("abc", (line.param.a, line.param.b, line.param.c), strict=True) if v is not None
    ]
    return f"{rhs}   param {' '.join([line.param.role, *given]).strip()}".rstrip()


@definition(MatMul, Nonlin, Moment, Outer)
def _(line) -> str:
    return spell(line).removeprefix(line.out + " ")


def to_networkx(program: Program, exponents: Exponents = None) -> networkx.DiGraph:
    """Return the graph of a program: a node a variable, an edge from each argument to each result.

    Nodes have ``kind`` (the instruction's name), ``type``, ``label``, ``order``, ``output`` and ``param``; edges have
    ``positions``, the places where the argument stands. Needs networkx, which comes with tensorprog.

    Example:
        >>> p = Program()
        >>> x = p.vector("x", p.dim("n"))
        >>> y = p.let("y", p.mean(x * x))
        >>> g = to_networkx(p)
        >>> g.nodes["y"]["kind"], g.edges["x", "y"]["positions"]
        ('Moment', (0, 1))
    """
    import networkx

    graph = networkx.DiGraph()
    for line in program.lines:
        graph.add_node(line.out, kind=type(line).__name__, type=str(program.type_of(line.out)),
                       label=f"{line.out} {definition[line](line)}", order=order(exponents, line.out),
                       output=line.out in program.outputs, param=isinstance(line, Input) and line.param is not None)
        for arg in dict.fromkeys(line.args):
            graph.add_edge(arg, line.out, positions=tuple(i for i, a in enumerate(line.args) if a == arg))
    return graph


def _graph(program: Program, exponents: Exponents):
    """Yield (identifier, kind, label, output) of nodes and (from, to, matrix) of edges; identifiers are safe words."""
    ids = {line.out: f"v{i}" for i, line in enumerate(program.lines)}
    for line in program.lines:
        label = f"{line.out} {definition[line](line)}"
        at = order(exponents, line.out)
        label = (label if len(label) <= 72 else label[:71] + "…") + (f"  {at}" if at else "")
        yield ids[line.out], type(line), label, line.out in program.outputs
        for arg in dict.fromkeys(line.args):
            yield ids[arg], ids[line.out], isinstance(line, MatMul) and arg == line.matrix


_SHAPES = {
    Input: ('(["', '"])'),
    MatMul: ('["', '"]'),
    Nonlin: ('("', '")'),
    Moment: ('{{"', '"}}'),
    Outer: ('[["', '"]]'),
}
_DOT = {Input: "ellipse", MatMul: "box", Nonlin: "box, style=rounded", Moment: "hexagon", Outer: "box3d"}


def to_mermaid(program: Program, exponents: Exponents = None) -> str:
    """Return a Mermaid flowchart; signs that Mermaid reads are written as its entity codes."""
    lines = ["flowchart TD"]
    for item in _graph(program, exponents):
        if len(item) == 4:
            node, kind, label, output = item
            left, right = _SHAPES[kind]
            safe = "".join(c if c.isalnum() or c in " _.,:=+-*/()" else f"#{ord(c)};" for c in label)
            lines.append(f"  {node}{left}{safe}{right}" + (":::output" if output else ""))
        else:
            lines.append(f"  {item[0]} {'-.->' if item[2] else '-->'} {item[1]}")
    return "\n".join([*lines, "  classDef output stroke-width:3px"])


def to_dot(program: Program, exponents: Exponents = None) -> str:
    """Return a graph in the DOT language of Graphviz."""
    lines = ["digraph program {", "  node [fontname=monospace];"]
    for item in _graph(program, exponents):
        if len(item) == 4:
            node, kind, label, output = item
            safe = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
            lines.append(f'  {node} [label="{safe}", shape={_DOT[kind]}{", peripheries=2" if output else ""}];')
        else:
            lines.append(f"  {item[0]} -> {item[1]}{' [style=dashed]' if item[2] else ''};")
    return "\n".join([*lines, "}"])


def to_html(program: Program, exponents: Exponents = None) -> str:
    """Return an HTML table of the lines."""
    rows = []
    for line in program.lines:
        cells = (line.out, str(program.type_of(line.out)), order(exponents, line.out), definition[line](line))
        body = "".join(f"<td>{escape(c)}</td>" for c in cells)
        rows.append(f"<tr>{body}</tr>")
    dims = ", ".join(escape(d.declaration()) for d in program.dims.values())
    outputs = f"<p>output {escape(', '.join(program.outputs))}</p>" if program.outputs else ""
    return (f'<div class="tensorprog"><p>{dims}</p><table><thead><tr><th>variable</th><th>type</th><th>order</th>'
            f"<th>definition</th></tr></thead><tbody>{''.join(rows)}</tbody></table>{outputs}</div>")


FORMATS: dict[str, Callable[[Program, Exponents], str]] = {
    "text": to_listing, "latex": to_latex, "html": to_html, "mermaid": to_mermaid, "dot": to_dot,
}
