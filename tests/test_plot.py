"""Figures show what was measured, and say what they cannot show."""

from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog import plot
from tensorprog.errors import RunError
from tensorprog.finite.confirm import confirm_exponents
from tensorprog.finite.fit import Verdict
from tensorprog.finite.sweep import sweep


@pytest.fixture(scope="module")
def program():
    p = tp.Program()
    n = p.dim("n")
    x, y = p.vector("x", n), p.vector("y", n)
    p.let("s", p.sum(x * y))
    p.let("zero", 0 * x)
    return p


@pytest.fixture(scope="module")
def confirmation(program):
    sizes = {"widths": (64, 128, 256, 512), "seeds": 16}
    return confirm_exponents(program, {"s": Fraction(1, 2), "x": Fraction(0), "zero": None}, **sizes)


def test_guides_have_the_predicted_slopes(confirmation):
    ax = plot.coordinate_check(confirmation)
    dashed = [line for line in ax.get_lines() if line.get_linestyle() == "--"]
    slopes = [np.polyfit(np.log(line.get_xdata()), np.log(line.get_ydata()), 1)[0] for line in dashed]
    np.testing.assert_allclose(slopes, [0.5, 0], atol=1e-9)


def test_exact_zeros_are_left_out(confirmation):
    assert "zero" not in [t.get_text() for t in plot.coordinate_check(confirmation).get_legend().get_texts()]


def test_it_draws_on_the_axes_it_is_given(confirmation):
    ax = plot.coordinate_check(confirmation, ["s"])
    before = len(ax.get_lines())
    assert plot.coordinate_check(confirmation, ["x"], ax=ax) is ax
    assert len(ax.get_lines()) == before + 2
    fresh = plot.exponents(confirmation)
    assert plot.exponents(confirmation, ax=fresh) is fresh


def test_a_sweep_of_several_programs_needs_a_name(program):
    runs = sweep({"a": (program, {}), "b": (program, {})}, [8, 16], 2, measure=["x"])
    with pytest.raises(RunError, match="which program"):
        plot.coordinate_check(runs)
    assert plot.coordinate_check(runs, program="b", predictions={"x": Fraction(0)}).get_lines()


def test_an_unknown_label_is_an_error(confirmation):
    with pytest.raises(RunError, match="not measured"):
        plot.coordinate_check(confirmation, ["nothing"])


def test_colours_say_the_verdict(program):
    sizes = {"widths": (64, 128, 256, 512, 1024), "seeds": 32}
    wrong = confirm_exponents(program, {"s": Fraction(1, 2), "x": Fraction(1)}, **sizes)
    assert wrong["x"].verdict is Verdict.REFUTED
    colours = [line.get_color() for line in plot.exponents(wrong).get_lines() if line.get_marker() == "o"]
    assert colours[1] == "tab:red"
