"""Fits and verdicts on synthetic sizes: coverage, power, hidden terms, and what cannot be fitted."""

import math
from fractions import Fraction

import numpy as np
import pytest

from tensorprog.finite.fit import ExponentFit, Verdict, fit_and_judge, fit_exponent, judge, judge_with_reason

WIDE = [1 << k for k in range(6, 15)]
HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)


def vectors(rng, e, a, b, seeds=16, widths=WIDE):
    """Sizes of vectors A n^e + B n^(e - 1/2): fluctuations over seeds are n^(-1/2)."""
    return {n: np.abs((a + b * n**-0.5) * n**e * (1 + rng.standard_normal(seeds) * n**-0.5)) for n in widths}


def scalars(rng, e, a, b, seeds=100, widths=WIDE):
    """Sizes of scalars of mean zero: two independent Gaussians, A n^e g + B n^(e - 1/2) h."""
    return {n: np.abs(a * n**e * rng.standard_normal(seeds) + b * n ** (e - 0.5) * rng.standard_normal(seeds))
            for n in widths}


def verdicts(make, true, wrong, trials=100):
    """Return the fits, how often the truth is refuted, and how often wrong predictions are, the worst of them."""
    fits = [make() for _ in range(trials)]
    refuted = {p: sum(judge(f, Fraction(p)) is Verdict.REFUTED for f in fits) for p in (true, *wrong)}
    return fits, refuted[true], min((refuted[p] for p in wrong), default=trials)


@pytest.mark.parametrize("e", [Fraction(0), Fraction(-1), Fraction(1, 2)])
def test_interval_covers_and_decent_data_refute(e):
    rng = np.random.default_rng(0)
    a_b = rng.standard_normal((100, 2))
    rows = iter(a_b)
    fits, false, power = verdicts(lambda: fit_exponent(vectors(rng, float(e), *next(rows))), e,
                                  [e + HALF, e - HALF, e + QUARTER, e - QUARTER])
    assert sum(f.low <= e <= f.high for f in fits) >= 96, "99% nominal"
    assert false <= 1
    assert power >= 90
    assert sum(judge(f, e) is Verdict.CONFIRMED for f in fits) >= 95
    assert np.median([f.half_width for f in fits]) < 0.05


def test_scalars_of_mean_zero():
    rng = np.random.default_rng(1)
    fits, false, power = verdicts(lambda: fit_exponent(scalars(rng, -0.5, 1.0, rng.standard_normal())), -HALF,
                                  [-2 * HALF])
    assert sum(f.low <= -HALF <= f.high for f in fits) >= 97
    assert false <= 1
    assert power >= 97
    assert sum(judge(f, -HALF) is Verdict.CONFIRMED for f in fits) >= 90


@pytest.mark.parametrize("ratio, widths", [(30, 6), (-100, 6), (100, 6), (100, 9), (-300, 9), (300, 9)])
def test_a_leading_term_hidden_under_the_next_order_is_not_refuted(ratio, widths):
    rng = np.random.default_rng(2)
    _, false, _ = verdicts(lambda: fit_exponent(vectors(rng, 0, 1.0, ratio, 16, WIDE[:widths])), 0, [], 150)
    assert false <= 4


def test_the_slope_of_a_hidden_term_would_mislead_a_straight_line():
    data = vectors(np.random.default_rng(0), 0, 0.0153, 14.0, 64, [1 << k for k in range(6, 18)])
    x, y = np.log(list(data)), np.log([np.sqrt((s**2).mean()) for s in data.values()])
    assert np.polyfit(x, y, 1)[0] < -0.4, "a line says n^(-1/2)"
    assert judge(fit_exponent(data), Fraction(0)) is not Verdict.REFUTED


@pytest.mark.slow
def test_false_refutations_are_below_one_percent():
    rng = np.random.default_rng(3)
    _, vector, _ = verdicts(lambda: fit_exponent(vectors(rng, 0, *rng.standard_normal(2), 8)), 0, [], 1500)
    _, scalar, _ = verdicts(lambda: fit_exponent(scalars(rng, 0, *rng.standard_normal(2), 50)), 0, [], 1500)
    assert vector < 15
    assert scalar < 15


# ------------------------------------------------------------------------------------------- what is not a fit


def test_zero_is_its_own_size():
    fit = fit_exponent({n: [0.0, 0.0] for n in WIDE})
    assert fit.is_zero
    assert judge(fit, None) is Verdict.CONFIRMED
    assert judge(fit, Fraction(-3)) is Verdict.REFUTED
    rounding = fit_exponent({n: [1e-17, 0.0] for n in WIDE})
    assert judge(rounding, None) is Verdict.CONFIRMED
    small = fit_exponent({n: [n**-2.0] * 3 for n in WIDE})
    assert judge_with_reason(small, None)[0] is Verdict.REFUTED


def test_zeros_among_sizes_are_ordinary():
    rng = np.random.default_rng(0)
    data = {n: np.where(rng.random(200) < 0.3, 0.0, n**-0.5) for n in WIDE}
    assert judge(fit_exponent(data), -HALF) is Verdict.CONFIRMED


def test_what_is_not_finite_is_left_out_with_a_reason():
    data = {n: [1.0, 1.01] for n in WIDE} | {1 << 15: [math.inf, 1.0], 1 << 16: [math.nan] * 2, 1 << 17: [0.0, 0.0]}
    fit = fit_exponent(data)
    assert fit.widths == tuple(WIDE)
    assert "width 32768 a size is not finite" in fit.reason
    assert judge(fit, Fraction(0)) is Verdict.CONFIRMED
    blown = fit_exponent({n: [math.inf] for n in WIDE})
    verdict, reason = judge_with_reason(blown, Fraction(0))
    assert verdict is Verdict.INCONCLUSIVE
    assert "not finite" in reason


def test_few_widths_or_wide_intervals_are_inconclusive():
    few = fit_exponent({n: [1.0, 1.1] for n in (64, 128, 256)})
    assert judge_with_reason(few, Fraction(0)) == (Verdict.INCONCLUSIVE, few.reason)
    rng = np.random.default_rng(0)
    noisy = fit_exponent(scalars(rng, 0, 1, 0, 4, WIDE[:5]))
    verdict, reason = judge_with_reason(noisy, Fraction(0))
    assert verdict is Verdict.INCONCLUSIVE
    assert "too wide" in reason


def test_one_seed_a_width_uses_the_lack_of_fit():
    rng = np.random.default_rng(0)
    fit = fit_exponent({n: [2 * n**-0.5 * (1 + 0.01 * rng.standard_normal())] for n in WIDE})
    assert judge(fit, -HALF) is Verdict.CONFIRMED
    assert judge(fit, Fraction(-1)) is Verdict.REFUTED


def test_deterministic_sizes():
    fit = fit_exponent({n: [3.0 * n] * 2 for n in WIDE})
    assert fit.slope == pytest.approx(1, abs=1e-3)
    assert fit.model == "A n^e"
    assert judge(fit, Fraction(1)) is Verdict.CONFIRMED


def test_the_bend_is_recognised():
    fit = fit_exponent({n: np.full(4, 1 + 20 * n**-0.5) for n in WIDE})
    assert "B n^(e-1/2)" in fit.model
    assert abs(fit.slope) < 0.02


def test_sharp_data_are_not_refuted_for_what_the_model_leaves_out():
    rng = np.random.default_rng(0)
    data = {n: n**0.5 * (1 - 1.5 / n + 2 * n**-1.5) * (1 + rng.standard_normal(300) / n) for n in WIDE[:8]}
    fit = fit_exponent(data, order=QUARTER)
    assert judge(fit, HALF) is Verdict.CONFIRMED
    assert judge(fit, Fraction(1)) is Verdict.REFUTED


def test_scale_free_and_safe_from_overflow():
    base = {n: np.array([0.9, 1.0, 1.2]) * n**-0.5 for n in WIDE}
    for k in (1e-200, 1e200):
        other = fit_exponent({n: k * s for n, s in base.items()})
        assert other.slope == pytest.approx(fit_exponent(base).slope)


def test_tolerance():
    fit = ExponentFit(0.0, -0.01, 0.01, (-0.02, 0.02), (64,), (1.0,), (0.01,), "A n^e")
    assert judge(fit, Fraction(1, 9)) is Verdict.INCONCLUSIVE
    assert judge(fit, Fraction(1, 8)) is Verdict.REFUTED
    assert judge(fit, Fraction(1, 8), tolerance=Fraction(1, 5)) is Verdict.CONFIRMED


# --------------------------------------------------------------------------------------------- a second look


def rare(rng, e, decay=0.5, seeds=50):
    """Sizes n^e with an excess at small widths that no second order describes: rare events make up the average."""
    return {n: n**e * (1 + 100 * math.exp(-((n / 32) ** decay))) * (1 + rng.standard_normal(seeds) * n**-0.5)
            for n in WIDE}


@pytest.mark.parametrize("e", [Fraction(0), -HALF])
@pytest.mark.parametrize("seeds", [50, 400])
def test_a_refutation_has_to_survive_without_the_small_widths(e, seeds):
    data = rare(np.random.default_rng(0), float(e), seeds=seeds)
    assert judge(fit_exponent(data), e) is Verdict.REFUTED, "all widths together mislead"
    fit, verdict, reason = fit_and_judge(data, e)
    assert verdict is Verdict.INCONCLUSIVE
    assert "from width 512 on" in reason
    assert fit == fit_exponent(data), "what is shown is the fit of all widths"


@pytest.mark.parametrize("wrong", [HALF, -HALF, Fraction(1), Fraction(-1)])
def test_what_is_wrong_at_large_widths_is_still_refuted(wrong):
    assert fit_and_judge(rare(np.random.default_rng(0), 0.0), wrong)[1] is Verdict.REFUTED
    plain = vectors(np.random.default_rng(0), 0.0, 1.0, 0.5)
    assert fit_and_judge(plain, wrong)[1] is Verdict.REFUTED
    assert fit_and_judge(plain, Fraction(0))[1] is Verdict.CONFIRMED
    assert fit_and_judge(plain, wrong / 2)[1] is Verdict.REFUTED


def test_few_widths_have_no_second_look():
    five = vectors(np.random.default_rng(0), 0.0, 1.0, 0.5, widths=WIDE[:5])
    assert fit_and_judge(five, Fraction(1))[1] is judge(fit_exponent(five), Fraction(1)) is Verdict.REFUTED
    zero = {n: [0.0] for n in WIDE}
    assert fit_and_judge(zero, None)[1] is Verdict.CONFIRMED
    assert fit_and_judge(zero, Fraction(0))[1] is Verdict.REFUTED
    assert fit_and_judge({n: [1.0, 1.1] for n in WIDE}, None)[1] is Verdict.REFUTED
