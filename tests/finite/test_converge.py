"""Limits in closed form are confirmed at finite width; wrong ones are refuted; too little is inconclusive."""

import json
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import ProgramError, RunError
from tensorprog.finite.converge import Convergence, converge, judge_values
from tensorprog.finite.fit import Verdict
from tensorprog.finite.population import Estimate, sample

from .known_limits import known

SEEDS = {64: 200, 128: 200, 256: 160, 512: 120, 1024: 100, 2048: 60, 4096: 40, 8192: 24}

CASES = [("relu", "yy"), ("sign", "xy"), ("ones", "q"), ("tied autoencoder", "xy"), ("relu step", "f1"),
         ("independent readout", "xg")]
MANY = [("chain", "zz"), ("chain", "zu"), ("semicircle 3", "q"), ("half as many rows", "k2"), ("own activations", "k2"),
        ("three layers", "q"), ("three layers", "c"), ("linear steps", "f2"), ("erf kernel", "k"), ("fixed axis", "gg"),
        ("cosine", "xz"), ("product", "k2")]


def assert_judged(name, scalar, off=0.1):
    program, limits = known(name)
    truth = limits[scalar]
    good = converge(program, scalar, truth, seeds=SEEDS)
    assert good.verdict is Verdict.CONFIRMED, f"{name}\n{good}"
    assert good.value is good.rate is Verdict.CONFIRMED
    assert good.fit.low < -0.5 < good.fit.high
    bad = converge(program, scalar, truth + off * max(1, abs(truth)), seeds=SEEDS)
    assert bad.verdict is Verdict.REFUTED, f"{name}\n{bad}"
    assert bad.value is Verdict.REFUTED


@pytest.mark.parametrize("name, scalar", CASES)
def test_what_is_true_is_confirmed_and_its_twin_refuted(name, scalar):
    assert_judged(name, scalar)


@pytest.mark.slow
@pytest.mark.parametrize("name, scalar", MANY)
def test_more_that_is_true_and_more_twins(name, scalar):
    assert_judged(name, scalar, off=0.2)


@pytest.mark.slow
def test_left_to_itself_it_finds_widths_and_seeds():
    program, limits = known("relu")
    assert converge(program, "yy", limits["yy"]).verdict is Verdict.CONFIRMED
    assert converge(program, "yy", limits["yy"] + 0.03).verdict is Verdict.REFUTED


@pytest.mark.slow
def test_sampled_limits_are_confirmed():
    program, _ = known("chain")
    found = sample(program, "zz", seed=3)["zz"]
    c = converge(program, "zz", found, seeds=SEEDS)
    assert c.limit_error == found.error
    assert c.verdict is Verdict.CONFIRMED, str(c)


# ------------------------------------------------------------------------------------- judged from values alone


def values(mean, sigma, widths=tuple(1 << k for k in range(6, 14)), seeds=200, rate=0.5):
    rng = np.random.default_rng(1)
    return {n: mean(n) + sigma * rng.standard_normal(seeds) * n**-rate for n in widths}


def test_a_bias_of_either_order_is_extrapolated():
    for bias in (lambda n: 1 + 4 / n, lambda n: 1 - 2 / n**0.5):
        assert judge_values(values(bias, 1.0), 1.0)["verdict"] is Verdict.CONFIRMED
        assert judge_values(values(bias, 1.0), 1.1)["verdict"] is Verdict.REFUTED


def test_a_rate_that_is_slower_is_refuted_though_the_limit_is_right():
    found = judge_values(values(lambda n: 1, 0.5, rate=0.0), 1.0)
    assert found["value"] is not Verdict.REFUTED
    assert found["rate"] is Verdict.REFUTED
    assert found["verdict"] is Verdict.REFUTED


def test_a_rate_that_is_faster_is_confirmed():
    found = judge_values(values(lambda n: 1, 1.0, rate=1.0), 1.0)
    assert found["fit"].slope < -0.9
    assert found["verdict"] is Verdict.CONFIRMED


def test_too_few_widths_are_inconclusive():
    for widths in ((64,), (64, 4096), (64, 512, 4096)):
        found = judge_values(values(lambda n: 1, 1.0, widths), 1.0)
        assert found["verdict"] is Verdict.INCONCLUSIVE
        assert "4 widths" in found["value_reason"]
    wide = judge_values(values(lambda n: 0.01, 1.0, (64, 96, 128, 160, 192), 5), 0.0)
    assert wide["value"] is Verdict.INCONCLUSIVE
    assert "uncertain" in wide["value_reason"]
    assert wide["rate"] is Verdict.INCONCLUSIVE


def test_what_is_exact_at_every_width_does_not_crash():
    exact = {n: np.full(3, 0.75) for n in (64, 128, 256, 512)}
    found = judge_values(exact, 0.75)
    assert found["verdict"] is Verdict.CONFIRMED
    assert "up to rounding" in found["value_reason"]
    assert judge_values(exact, 0.74)["verdict"] is Verdict.REFUTED
    assert judge_values({n: np.zeros(3) for n in exact}, 0.0)["verdict"] is Verdict.CONFIRMED
    assert judge_values({64: np.zeros(3)}, 0.0)["verdict"] is Verdict.INCONCLUSIVE
    slowly = {n: np.full(3, 2 + 1 / n) for n in (64, 128, 256, 512, 1024)}  # no spread, a bias only
    assert judge_values(slowly, 2.0)["verdict"] is Verdict.CONFIRMED
    assert judge_values(slowly, 2.01)["verdict"] is Verdict.REFUTED


def test_an_uncertain_limit_is_not_held_against_the_values():
    data = values(lambda n: 1, 1.0)
    for limit in (0.97, 1.03):
        assert judge_values(data, limit)["value"] is Verdict.REFUTED
        found = judge_values(data, limit, 0.03)
        assert found["value"] is Verdict.CONFIRMED
        assert found["rate"] is Verdict.INCONCLUSIVE
        assert "errors are those of the limit" in found["rate_reason"]


def test_values_that_are_not_finite_are_inconclusive():
    data = values(lambda n: 1, 1.0)
    data[64][0] = np.inf
    found = judge_values(data, 1.0)
    assert found["value"] is Verdict.INCONCLUSIVE
    assert "not finite" in found["value_reason"]


def test_refutations_of_true_limits_are_rare():
    """0.1% a time by design; 200 trials with curvature and few seeds."""
    rng = np.random.default_rng(5)
    refuted = 0
    for _ in range(200):
        a, b = rng.standard_normal(2) * (1, 5)
        data = {n: 1 + a / n**0.5 + b / n + rng.standard_normal(8) / n**0.5 for n in (64, 128, 256, 512, 1024, 2048)}
        refuted += judge_values(data, 1.0)["value"] is Verdict.REFUTED
    assert refuted <= 3


# --------------------------------------------------------------------------------------------- the front door


@pytest.fixture(scope="module")
def result() -> Convergence:
    program, _ = known("relu")
    return converge(program, "yy", Fraction(3, 4), [64, 128, 256, 512], seeds=20)


def test_the_table_and_the_json_say_the_same(result):
    text = str(result)
    assert text.splitlines()[0].split() == ["width", "seeds", "mean", "bias", "99%", "interval", "spread", "error"]
    assert len(text.splitlines()) == 1 + 4 + 3
    assert text.splitlines()[-1] == result.verdict.name.lower()
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["limit"] == 0.75
    assert [row["n"] for row in data["rows"]] == [64, 128, 256, 512]
    assert data["verdict"] == result.verdict.name.lower()
    assert result._repr_html_().count("<tr>") == 5


def test_rows_are_what_they_say(result):
    from tensorprog.finite.numpy_backend import run

    program, _ = known("relu")
    x = np.array([run(program, 256, s)["yy"] for s in range(20)])
    row = next(r for r in result.rows if r.n == 256)
    assert (row.seeds, row.mean, row.spread) == pytest.approx((20, x.mean(), x.std(ddof=1)))
    assert row.bias == pytest.approx(x.mean() - 0.75)
    assert row.error == pytest.approx(np.sqrt(((x - 0.75) ** 2).mean()))
    assert row.low < row.bias < row.high


def test_any_map_gives_the_same_result(result):
    program, _ = known("relu")
    with ThreadPoolExecutor(2) as pool:
        assert converge(program, "yy", 0.75, [64, 128, 256, 512], 20, map=pool.map) == result


def test_signs_count():
    """The limit of -mean(x*x) is -1, not 1."""
    program = tp.parse("dim n\nvector x : n ~ N(0, 1)\nq = -mean(x*x)")
    widths = [64, 128, 256, 512, 1024, 2048]
    assert converge(program, "q", -1, widths, 60).value is Verdict.CONFIRMED
    assert converge(program, "q", 1, widths, 60).verdict is Verdict.REFUTED


def test_limits_that_are_no_numbers():
    program, _ = known("relu")
    with pytest.raises(RunError, match="not a finite number"):
        converge(program, "yy", "three quarters")
    with pytest.raises(RunError, match="not a finite number"):
        converge(program, "yy", Estimate(float("nan"), 0.1))
    with pytest.raises(RunError, match="only a scalar"):
        converge(program, "y", 0.5)
    with pytest.raises(ProgramError, match="no such variable"):
        converge(program, "nothing", 0.5)
