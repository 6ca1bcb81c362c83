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


THREE = """
dim n
matrix W : n x n
vector x : n
h = W @ x
y = W.T @ relu(h)
z = W @ relu(y)
q = mean(z * h)
"""


def test_coordinates_follow_the_law_of_z():
    """Z^z is made of correlated Gaussians and a relu: densities drawn are those of its moments, not of a normal's."""
    z = tp.parse(THREE).limit("z")
    ax = plot.coordinates(np.linspace(-6, 6, 1001), {"Z": z}, bins=300)
    (steps,) = [p for p in ax.patches if hasattr(p, "get_data")]
    density, edges, _ = steps.get_data()
    middles, mass = (edges[1:] + edges[:-1]) / 2, density * np.diff(edges)
    mean = mass @ middles
    assert abs(mass.sum() - 1) < 1e-3
    assert abs(mean - 1 / (2 * (2 * np.pi) ** 0.5)) < 0.01
    assert abs(mass @ middles**2 - 5 / 8) < 0.01  # the known E (Z^z)^2
    assert mass @ (middles - mean) ** 3 > 0.1, "skewed by the relu"


def test_a_law_is_needed():
    p = tp.parse(THREE)
    for limit in (p.limit("q"), p.limit("z", method="sampled", tol=0.05)):
        with pytest.raises(RunError, match="not the law"):
            plot.coordinates(np.zeros(3), {"Z": limit})


def test_convergence_shows_means_and_levels():
    from tensorprog.finite.converge import converge

    result = converge(tp.parse(THREE), "q", 0.5, [16, 64, 256, 1024], seeds=8)
    ax = plot.convergence(result, {"naive": 0.0})
    assert [line.get_ydata()[0] for line in ax.get_lines()[:2]] == [0.5, 0.0]
    np.testing.assert_array_equal(ax.containers[0].lines[0].get_ydata(), [r.mean for r in result.rows])
