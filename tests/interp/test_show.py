"""Readings for people: every format on every program, with names that need escaping."""

import html.parser
import re
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest

from tensorprog.errors import NotCoveredError
from tensorprog.interp.latex import latex, name, to_latex
from tensorprog.interp.rules import ALL_INTERPRETERS, Rules
from tensorprog.interp.show import FORMATS, definition, show, to_networkx
from tensorprog.program.instructions import INSTRUCTIONS, MatMul, Moment, Nonlin, Outer
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program
from tensorprog.testing import market, random_program

ODD_NAMES = ("h#1@2.dW", 'q"uote', "a<b>&c", "back\\slash", "per%cent$", "tilde~^", "`tick`", "{brace}", "end", "x'")


def with_odd_names():
    p = Program()
    n = p.dim("n")
    x = p.vector("x", n)
    for i, odd in enumerate(ODD_NAMES):
        p.add(Nonlin(odd, Poly.linear([i + 1]), (x.name,)))
    p.add(Outer("dW#0", object(), ((("x", ODD_NAMES[0]), ("x", ODD_NAMES[1])),)))
    p.add(MatMul("y@1", "dW#0", ODD_NAMES[2], True))
    p.add(Moment("m.1", ("y@1", ODD_NAMES[3], "x")))
    p.output("m.1")
    return p


PROGRAMS = {
    **market(),
    "odd_names": with_odd_names(),
    **{f"random{s}": random_program(np.random.default_rng(s)) for s in range(4)},
}


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS)
def program(request):
    return request.param


def test_tables_are_total():
    assert definition.missing() == latex.missing() == []
    assert {definition, latex} <= set(ALL_INTERPRETERS)


def test_a_table_names_what_it_lacks():
    table = Rules("cost", listed=False)
    assert table.missing() == list(INSTRUCTIONS)
    assert table not in ALL_INTERPRETERS

    @table(MatMul, Moment)
    def _(line):
        return 1

    assert MatMul not in table.missing()
    assert table[MatMul("h", "W", "x")](None) == 1
    with pytest.raises(NotCoveredError, match="cost has no rule"):
        table[Nonlin("y", Poly.linear([1]), ("x",))]
    with pytest.raises(TypeError, match="has a rule already"):
        table(MatMul)
    with pytest.raises(TypeError, match="not one of"):
        table(int)


def test_the_listing_has_a_line_for_every_variable(program):
    text = show(program, dict.fromkeys(program.names, Fraction(1, 2)))
    for line in program.lines:
        found = [
            row
            for row in text.splitlines()
            if row.startswith(line.out) and row[len(line.out) :].lstrip().startswith(":")
        ]
        assert len(found) == 1
        assert str(program.type_of(line.out)) in found[0]
        assert "n^(1/2)" in found[0]


def test_orders_of_the_listing():
    p = market()["tied"]
    rows = {row.split()[0]: row for row in show(p, {"x": Fraction(0), "y": None, "q": Fraction(-1)}).splitlines()}
    assert re.search(r"vector n +n\^0 +~ N", rows["x"])
    assert re.search(r"vector n +0 +=", rows["y"])
    assert re.search(r"scalar +n\^-1 +=", rows["q"])
    assert "n^0" not in show(p)


def test_the_graph(program):
    graph = to_networkx(program, {"x": Fraction(0)})
    assert nx.is_directed_acyclic_graph(graph)
    assert set(graph) == set(program.names)
    assert {(a, line.out) for line in program.lines for a in line.args} == set(graph.edges)
    assert [v for v in graph if graph.nodes[v]["output"]] == [v for v in program.names if v in program.outputs]
    assert {graph.nodes[line.out]["kind"] for line in program.lines} == {type(line).__name__ for line in program.lines}


def test_mermaid_has_only_safe_signs(program):
    lines = show(program, format="mermaid").splitlines()
    assert lines[0] == "flowchart TD"
    node = re.compile(
        r'  v[0-9]+(\(\["|\["|\("|\{\{"|\[\[")(?:[\w .,:=+\-*/()]|#[0-9]+;)*("\]\)|"\]|"\)|"\}\}|"\]\])(:::output)?'
    )
    edge = re.compile(r"  v[0-9]+ (-->|-\.->) v[0-9]+")
    assert all(node.fullmatch(x) or edge.fullmatch(x) for x in lines[1:-1])
    assert sum(bool(node.fullmatch(x)) for x in lines) == len(program.lines)
    assert sum(bool(edge.fullmatch(x)) for x in lines) == len(to_networkx(program).edges)


def test_dot_strings_are_closed(program):
    text = show(program, format="dot")
    labels = re.findall(r'label="((?:[^"\\]|\\.)*)", shape', text)
    assert len(labels) == len(program.lines)
    rest = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    assert rest.count("{") == rest.count("}") == 1
    assert '"' not in rest


class _Table(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells, self.text = [], [], None

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "td":
            self.text = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "td":
            self.cells.append(self.text)

    def handle_data(self, data):
        if self.text is not None:
            self.text += data


def test_html_is_balanced_and_gives_names_back(program):
    table = _Table()
    table.feed(program._repr_html_())
    assert table.open == []
    assert table.cells[::4] == list(program.names)
    assert table.cells[3::4] == [definition[line](line) for line in program.lines]


def test_latex_braces_balance(program):
    text = to_latex(program, dict.fromkeys(program.names, Fraction(0)))
    bare = re.sub(r"\\[{}]", "", text)
    depth = 0
    for c in bare:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0
    assert text.count(r"\\" + "\n") == max(len(program.lines) - 1, 0)
    assert not re.search(r"(?<!\\)[#$%]", text)


def test_latex_names_are_distinct_where_it_matters():
    names = ["x", "x1", "_1", "1", "xi", "sigma2", "W", "tok", *ODD_NAMES]
    assert len({name(v) for v in names}) == len(names)


def test_latex_reads_like_the_paper():
    text = to_latex(market()["scalars"]) + to_latex(market()["symmetric"]) + to_latex(market()["multiplier"])
    for part in (
        r"= W w",
        r"\mathbf{1}",
        r"\tfrac{1}{n}",
        r"\mathcal{N}(0, n^{-1})",
        r"W^{\top} x",
        r"\frac{\sqrt{2}}{2}",
        r"\tanh\left(",
        r"n^{-\alpha}",
        r"\tfrac{1}{3}",
    ):
        assert part in text, part


@pytest.mark.parametrize("form", FORMATS)
def test_the_empty_program_has_every_reading(form):
    assert isinstance(show(Program(), format=form), str)


def test_unknown_formats_are_refused():
    with pytest.raises(NotCoveredError, match="use text, latex, html, mermaid, dot"):
        show(Program(), format="png")
