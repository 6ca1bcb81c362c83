"""Any text is either a program that round-trips or a clean error, and neither takes long."""

import re
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tensorprog.errors import TensorProgError
from tensorprog.program.grammar import STATEMENTS, WORDS
from tensorprog.program.text import parse, to_text
from tensorprog.testing import market

TEXTS = [to_text(p) for p in market().values()] + [
    "dim n\ndim m ~ 2*n\nmatrix W : m x n ~ N(1/2, 4/n)\nvector x : n\n"
    "y = ((W.T @ W) @ x)^2/3 - 0.25*x\nq = mean(y*x)*sqrt(2)\n",
    "exponent alpha\ndim n\nparam W : n x n [a=0, b=1/2, c=-1]\nvector x : n\n"
    "y = n^(-2*alpha + 1/2)*(W @ x) + n^(a[W])*x\n",
    "dim n\nmatrix W : n x n\nvector u, v : n ~ N([0, 1], [[1, 1/2], [1/2, 1]])\n"
    "D = diag(u)\nt = mean(trace(W @ D @ W.T))\n",
]
TOKENS = [
    *STATEMENTS,
    *WORDS,
    "n",
    "x",
    "W",
    "W.T",
    "y",
    "_1",
    "q",
    "relu",
    "hermite",
    "softmax_0",
    "d2_tanh",
    "diff_sin",
    "N",
    "a",
    "init",
    "zero",
    "0",
    "1",
    "2",
    "1/2",
    "0.5",
    "1e3",
    "9" * 40,
    *"+-*/@^~=:,()[]#`.é λ²\t\n\x00\ufeff\u2028'\\\"",
    "**",
    " x ",
    ".T",
]
PRELUDE = (
    "dim n\ndim m ~ 2*n\nmatrix W : n x n\nmatrix B : m x n\n"
    "vector x : n\nvector u, v : m\nscalar s = 1/3\nexponent alpha\n"
)

soup = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)


@st.composite
def expressions(draw):
    """Expressions that are mostly well-formed and often ill-typed, after declarations."""
    leaf = st.sampled_from(
        ["x", "u", "v", "s", "W", "B", "W.T", "n", "m", "alpha", "pi", "1", "2", "1/2", "0", "-3", "sqrt(2)"]
    )
    tree = st.recursive(
        leaf,
        lambda e: st.one_of(
            st.tuples(e, st.sampled_from([" + ", " - ", "*", "/", " @ ", "^", " - -"]), e).map("".join),
            e.map(lambda x: f"({x})"),
            e.map(lambda x: f"-{x}"),
            st.tuples(
                st.sampled_from(["mean", "sum", "relu", "tanh", "diag", "trace", "sqrt", "mean(trace", "cos"]), e
            ).map(lambda t: f"{t[0]}({t[1]})" + ")" * t[0].count("(")),
        ),
        max_leaves=12,
    )
    return PRELUDE + "".join(f"y{i} = {draw(tree)}\n" for i in range(draw(st.integers(1, 3))))


@st.composite
def mutations(draw):
    """A good text with a few characters or tokens removed, doubled, replaced or inserted."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        pieces = re.findall(r"\w+|\s|[^\w\s]", text)
        i = draw(st.integers(0, len(pieces) - 1))
        kind = draw(st.integers(0, 4))
        new = {
            0: [],
            1: [pieces[i]] * 2,
            2: [draw(st.sampled_from(TOKENS))],
            3: [pieces[i], draw(st.sampled_from(TOKENS))],
            4: [pieces[draw(st.integers(0, len(pieces) - 1))]],
        }[kind]
        text = "".join(pieces[:i] + new + pieces[i + 1:])
    return text


def read(text):
    """Return the program that a text spells and None, or None and the error."""
    try:
        return parse(text), None
    except TensorProgError as error:
        return None, error


def assert_clean(text):
    """Assert that a text is a program that round-trips, or an error with line, value, reason and fix."""
    program, error = read(text)
    if program is None:
        number = re.match(r"([0-9]+): ", error.line)
        assert number, error
        assert 1 <= int(number[1]) <= len(re.split(r"\r\n|\n|\r", text))
        assert error.reason, error
        assert error.fix, error
        return
    spelled = to_text(program)
    assert parse(spelled) == program, spelled
    assert to_text(parse(spelled)) == spelled


def inputs(max_examples):
    """Return the decorator for so many inputs of all kinds."""
    def decorate(test):
        return settings(
            max_examples=max_examples,
            deadline=timedelta(seconds=5),
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )(
            given(st.one_of(mutations(), soup, expressions(), soup.map(lambda x: PRELUDE + x), st.text(max_size=60)))(
                test
            )
        )

    return decorate


@inputs(500)
@example("scalar t = (1 + sqrt(2))^-1 - sqrt(2) + 1")
@example("scalar t = 2^(1/64)^(1/64)")
def test_any_text_is_a_program_or_a_clean_error(text):
    assert_clean(text)


@pytest.mark.slow
@inputs(10_000)
def test_ten_thousand_texts(text):
    assert_clean(text)


@settings(max_examples=100, deadline=timedelta(seconds=5), derandomize=True)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_program_or_a_clean_error(data):
    program, error = read(data)
    assert program is not None or error.fix
