"""Sampled limits against closed forms, their stated errors, and what has no limit."""

import json
import math

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ProgramError, RunError
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run
from tensorprog.finite.population import sample
from tensorprog.finite.sobol import SobolDraws, columns, normal_net
from tensorprog.program.text import parse

from .known_limits import KNOWN, SQUARE, known

EXACT = {"id", "there and back", "semicircle 2", "semicircle 3", "semicircle 5", "half as many rows", "product",
         "linear steps"}


@pytest.mark.parametrize("name", KNOWN)
def test_a_closed_form_is_found_within_the_stated_error(name):
    program, limits = known(name)
    found = sample(program, list(limits), tol=1e-2 if name in ("squares, gradient", "ten layers") else 1e-3)
    for x, value in limits.items():
        assert abs(found[x].value - value) <= 2 * found[x].error, f"{name}: {x} = {found[x]}, not {value}"
        assert found[x].error <= (1e-9 if name in EXACT else 0.05)


@pytest.mark.parametrize("name", ["relu", "chain", "three layers", "relu step"])
def test_a_wrong_limit_lies_outside(name):
    program, limits = known(name)
    for x, estimate in sample(program, list(limits)).items():
        assert abs(estimate.value - (limits[x] + 1e-2)) > 2 * estimate.error


@pytest.mark.slow
def test_stated_errors_cover_as_often_as_they_say():
    """Of independent seeds, 95% lie within; half the stated error would hold about three quarters."""
    hits = []
    for name in KNOWN:
        program, limits = known(name)
        if name in EXACT | {"ten layers"}:
            continue
        for seed in range(20):
            found = sample(program, list(limits), seed=seed, tol=3e-3)
            missed = [abs(found[x].value - v) / found[x].error for x, v in limits.items() if found[x].error > 1e-9]
            hits += missed
    hits = np.array(hits)
    inside, half = (hits <= 1).mean(), (hits <= 0.5).mean()
    assert inside > 0.92, f"errors are understated: {inside:.3f} of {len(hits)} lie inside"
    assert half < 0.90, f"errors are overstated: {half:.3f} lie within half of them"
    assert hits.max() < 4


def test_vectors_have_moments_and_samples():
    program, _ = known("ones")
    y = sample(program, "y", keep=4000)["y"]
    assert y.second is not None
    assert y.samples is not None
    assert abs(y.value - 1 / 2) <= 2 * y.error < 1e-2
    assert abs(y.second.value - 3 / 4) <= 2 * y.second.error < 1e-2
    from scipy import stats

    # Z is 1/2 + a normal of variance 1/2; without the part that comes back from W it would be centred
    assert y.samples.shape == (4000,)
    assert stats.kstest(y.samples, "norm", (1 / 2, math.sqrt(1 / 2))).pvalue > 1e-3
    assert stats.kstest(y.samples, "norm", (0, math.sqrt(1 / 2))).pvalue < 1e-6
    assert json.loads(json.dumps(y.to_json()))["second"]["method"] == "sampled"


def test_errors_shrink_with_the_population_as_asked():
    program, _ = known("three layers")
    small, large = (sample(program, "g", size=n)["g"] for n in (2048, 32768))
    assert (small.size, large.size, small.replicates) == (2048, 32768, 8)
    assert large.error < small.error / 5  # plain draws would gain a factor of 4
    tight = sample(program, "g", tol=2e-4)["g"]
    assert tight.error <= 2e-4
    assert tight.size > small.size
    assert abs(tight.value - 1) <= 2 * tight.error


def test_a_budget_ends_it_with_the_error_that_was_reached():
    program, _ = known("three layers")
    found = sample(program, "g", tol=1e-12, budget=0.0)["g"]
    assert found.size == 2048
    assert found.error > 1e-4


def test_seeds_are_reproducible_and_independent():
    program, _ = known("relu")
    a, b, c = (sample(program, "yy", seed=s, size=2048)["yy"] for s in (1, 1, 2))
    assert a == b
    assert a.value != c.value


def test_unknown_exponents_take_values():
    program = tp.parse(
        "dim n\nexponent a\nmatrix W : n x n ~ N(0, n^(-1+2*a))\nvector x : n ~ N(0, 1)\nq = mean((W @ x)*(W @ x))")
    assert abs(sample(program, "q", values={"a": 0})["q"].value - 1) < 1e-9


# ------------------------------------------------------------------------------------------------ refusals


def test_what_does_not_concentrate_has_no_limit():
    """x.v/n^(1/2) is N(0, 1); orthogonal columns alone would say 0."""
    program = tp.parse("dim n\nvector x : n ~ N(0, 1)\nvector v : n ~ N(0, 1)\nf = n^(1/2) * mean(x*v)\ny = f*x")
    with pytest.raises(NotCoveredError, match="does not concentrate"):
        sample(program, "f")
    with pytest.raises(NotCoveredError, match="does not concentrate"):
        sample(program, "y")
    assert abs(sample(program, "x")["x"].second.value - 1) < 1e-9


def test_populations_that_overflow_are_refused():
    program = tp.parse("dim n\nvector x : n ~ N(0, 1)\ny = exp(x*x*x*x)\nq = mean(y*y)")
    with pytest.raises(RunError, match="not finite"):
        sample(program, "q")


def test_names_that_have_no_limit():
    program, _ = known("relu")
    with pytest.raises(ProgramError, match="no such variable"):
        sample(program, "nothing")
    with pytest.raises(RunError, match="a matrix has no limit"):
        sample(program, "W")
    with pytest.raises(RunError, match="two populations"):
        sample(program, "yy", replicates=1)


# -------------------------------------------------------------------------------------------- Sobol columns


def test_columns_are_orthonormal_and_as_many_as_announced():
    g = normal_net(1536, 150, np.random.default_rng(0))
    assert g.shape == (150, 1536)
    assert np.allclose(g.sum(axis=1), 0, atol=1e-9)
    assert np.allclose(g[:128] @ g[:128].T / 1536, np.eye(128))
    from scipy import stats

    assert all(stats.kstest(row, "norm").pvalue > 0.01 for row in g[::10])


@pytest.mark.parametrize("name", ["chain", "half as many rows", "fixed axis", "relu kernel", "ten layers"])
def test_a_run_asks_for_the_columns_that_were_counted(name):
    program, _ = known(name)
    counts = columns(program, 2048)
    draws = SobolDraws(2048, 0, counts)
    run(program, 2048, 0, draws=draws)
    assert draws._used == counts


def test_beyond_the_announced_columns_draws_are_plain_but_never_repeated():
    draws = SobolDraws(1024, 0, {1024: 2})
    found = [draws.fresh((1024,), (k,)) for k in range(4)]
    gram = np.array(found) @ np.array(found).T / 1024
    assert np.allclose(gram[:2, :2], np.eye(2))
    assert np.abs(gram - np.eye(4)).max() < 0.3
    assert (draws.fresh((1024,), (0,)) == found[0]).all()
    assert draws.normal("W", (1024, 1024)).shape == (1024, 1024)  # two growing axes: plain
    assert draws.normal("b", (3,)).shape == (3,)


def test_matrices_with_a_fixed_axis_are_drawn_by_columns():
    """However a run goes about it, in blocks or at once: the columns are those of the net."""
    program, _ = known("fixed axis")
    for n in (2048, 1 << 17):
        draws = SobolDraws(n, 0, columns(program, n))
        assert abs(run(program, n, 0, draws=draws)["hh"] - 2) < 1e-12
    entries, seen = draws.visit("U", (n, 3), lambda start, part: part)
    assert entries is not None
    assert (np.concatenate(seen).reshape(n, 3) == entries).all()
    assert np.allclose(entries.T @ entries / n, np.eye(3))


def test_replicates_are_independent():
    """Nets list alike points alike whatever their scramble, but averages over them have independent errors."""
    program, _ = known("relu")
    counts = columns(program, 1024)
    errors = [run(program, 1024, s, draws=SobolDraws(1024, s, counts, base=7))["yy"] - 3 / 4 for s in range(400)]
    assert abs(np.corrcoef(errors[::2], errors[1::2])[0, 1]) < 0.25
    assert abs(np.mean(errors)) < 4 * np.std(errors) / 20  # nor are they biased


def test_sobol_columns_beat_plain_draws():
    """The measure behind the table of the docstring, at one size: a factor of 10 and more."""
    program, _ = known("relu")

    def rms(make):
        return np.sqrt(np.mean([(run(program, 4096, s, draws=make(s))["yy"] - 3 / 4) ** 2 for s in range(12)]))

    counts = columns(program, 4096)
    assert 10 * rms(lambda s: SobolDraws(4096, s, counts)) < rms(lambda s: Draws(4096, s))


def test_the_cost_per_line_does_not_depend_on_where_it_stands():
    assert sum(columns(tp.parse(SQUARE + "y = W @ x"), 64).values()) == 2
    ten, three = (sum(columns(known(x)[0], 64).values()) for x in ("ten layers", "three layers"))
    assert (ten, three) == (22, 8)


def test_an_event_that_no_sample_sees_is_within_the_error():
    """E step(x - 5) = 2.9e-7: all replicates are 0, and the error says what that is worth."""
    found = sample(parse("dim n\nvector x : n\nq = mean(step(x - 5))"), "q", tol=1e-3)["q"]
    assert found.value == 0 and 2.9e-7 < found.error < 1e-3
