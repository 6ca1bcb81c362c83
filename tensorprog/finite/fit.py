"""Exponents from sizes at several widths: intervals that know of the next order, and verdicts with reasons."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

#: Two-sided confidence of all intervals.
CONFIDENCE = 0.99
#: The leading term makes up at least this share of the size at the largest width: nobody sees what hides deeper.
HIDDEN = 1 / 6
#: Ratios of the next coefficient to the leading one are Cauchy of this scale, as far as the data do not tell.
TYPICAL_RATIO = 5.0
#: The same for ``outer``: what is to be refuted gets the benefit of a far larger ratio.
GENEROUS_RATIO = 60.0
#: An interval of a larger half-width tells nothing.
WIDEST = 0.2
_FEWEST_WIDTHS = 4
_FEWEST_FOR_REFUTATION = 5
_FLOOR = 1e-4  # relative error that no size can beat: rounding, and a log-log fit's own roughness
_ROUNDING_ZERO = 1e-14


class Verdict(enum.Enum):
    """What a measurement says about a prediction."""

    CONFIRMED = "The measured exponent agrees with the prediction within the tolerance."
    REFUTED = "The measured exponent differs from the prediction by more than its error."
    INCONCLUSIVE = "The confidence interval is wider than the tolerance; use more widths or seeds."


@dataclass(frozen=True, slots=True)
class ExponentFit:
    """A fitted exponent with its 99% interval.

    Args:
        slope: the exponent e of the best model; NaN if there is none, -inf if every size is zero.
        low, high: the interval if coefficients of consecutive orders are of ordinary ratio (``TYPICAL_RATIO``).
        outer: a wider interval, allowing the leading term to be ``HIDDEN`` under the next; only what lies
            outside of it is refuted.
        widths, sizes, errors: the data: root mean squares over seeds, relative standard errors.
        model: the best model in words.
        reason: why there is no fit, or what was left out; empty if nothing.
    """

    slope: float
    low: float
    high: float
    outer: tuple[float, float]
    widths: tuple[int, ...]
    sizes: tuple[float, ...]
    errors: tuple[float, ...]
    model: str
    reason: str = ""

    @property
    def is_zero(self) -> bool:
        """Whether every size is exactly zero."""
        return self.slope == -math.inf

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


def fit_exponent(samples: Mapping[int, Sequence[float]], *, order: Fraction = Fraction(1, 2),
                 checks: int = 1) -> ExponentFit:
    r"""Fit ``size ~ n^e`` to sizes of several seeds at several widths.

    The size at a width is the root mean square over seeds, so that a scalar of mean zero has the size of its
    standard deviation. With two terms, ``A n^e + B n^(e-1/2)`` for random A and B, its square is

        n^(2e) (a_0 + a_1 x + a_2 x^2),        x = n^(-1/2),    a_1^2 <= 4 a_0 a_2.

    What comes after, of relative size ``x^3``, counts as an error of the size. For every ratio of coefficients on a
    grid, the weighted least squares line of ``log size`` corrected by this curve gives e; the interval is the union
    over all ratios that fit about as well as the best one (profile likelihood), with chi-square inflated by the lack
    of fit. Ratios are penalised as Cauchy variables for ``low, high``, and only bounded for ``outer``.

    Args:
        samples: width -> the sizes of the seeds, nonnegative.
        order: the step between orders; 1/2 unless dimensions grow like other roots of n.
        checks: how many fits are judged together; ``outer`` makes their joint confidence 99%.

    Returns:
        ``ExponentFit``. Sizes that are not finite, and widths at which all vanish, are left out with a reason.

    Example:
        >>> fit = fit_exponent({n: [n**-0.5 * (1 + k / n) for k in (-1, 0, 1)] for n in (64, 256, 1024, 4096)})
        >>> fit.low < -0.5 < fit.high, judge(fit, Fraction(-1, 2)).name, judge(fit, Fraction(0)).name
        (True, 'CONFIRMED', 'REFUTED')
    """
    widths, log_sizes, variances, dof, reason = _aggregate(samples)
    sizes, errors = tuple(map(float, np.exp(log_sizes))), tuple(map(float, np.sqrt(variances)))
    if not len(widths) and not reason:
        widths = sorted(samples)
        return ExponentFit(-math.inf, -math.inf, -math.inf, (-math.inf, -math.inf), tuple(widths), (0.0,) * len(widths),
                           (0.0,) * len(widths), "zero")
    if len(widths) < _FEWEST_WIDTHS:
        reason = (reason + " " if reason else "") + f"An interval needs {_FEWEST_WIDTHS} widths with finite sizes."
        everything: tuple[float, float] = (-math.inf, math.inf)
        return ExponentFit(math.nan, -math.inf, math.inf, everything, tuple(widths), sizes, errors, "none", reason)
    from scipy import stats

    log_n = np.log(np.asarray(widths, float))
    x = np.exp(-float(order) * log_n)
    shapes, ratios = _shapes(x)
    # a size is known no better than up to the first order that the model leaves out, of ratio 1
    slopes, chi2, variance = _lines(log_n, log_sizes, 1 / (variances + x**6), shapes)
    inflation = float(chi2.min()) / max(1, len(widths) - 4)
    if dof:
        inflation = max(1.0, inflation)
    freedom = dof or max(1, len(widths) - 4)
    cut, outer_cut = (
        inflation * float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / k, freedom)) ** 2 for k in (1, max(1, checks))
    )
    typical, generous = (
        chi2 + inflation * 2 * np.log1p((ratios / scale) ** 2).sum(axis=1) for scale in (TYPICAL_RATIO, GENEROUS_RATIO)
    )
    best = int(typical.argmin())
    low, high = _union(slopes, typical, variance, cut)
    outer = _union(slopes, generous, variance, outer_cut)
    model = _MODELS[bool(ratios[best, 0]), bool(ratios[best, 1])].replace("ORDER", str(order))
    return ExponentFit(float(slopes[best]), low, high, outer, tuple(widths), sizes, errors, model, reason)


_MODELS = {
    (False, False): "A n^e",
    (True, False): "A n^e + B n^(e-ORDER)",
    (False, True): "A n^e and an independent B n^(e-ORDER)",
    (True, True): "A n^e + B n^(e-ORDER) and an independent C n^(e-ORDER)",
}


def _shapes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log of size / (A n^e) at the widths, for all ratios (b, c): ``sqrt((1 + b x)^2 + c^2 x^2)``."""
    last = x.min()
    positive = np.geomspace(0.02, 1 / HIDDEN / last, 90)
    b = np.concatenate([-positive[::-1], [0.0], positive])
    c = np.concatenate([[0.0], positive[::3]])
    ratios = np.stack(np.meshgrid(b, c, indexing="ij"), axis=-1).reshape(-1, 2)
    size, without = np.hypot(1 + ratios[:, 0] * last, ratios[:, 1] * last), np.hypot(*ratios.T) * last
    ratios = ratios[np.abs(size - without) >= HIDDEN * np.maximum(size, without)]
    square = (1 + ratios[:, :1] * x) ** 2 + (ratios[:, 1:] * x) ** 2
    return 0.5 * np.log(np.maximum(square, 1e-12)), ratios


def _lines(log_n, log_sizes, weights, shapes):
    """Return slopes, chi-squares and the variance of the slope of weighted lines, one for every shape."""
    weights_total = weights.sum()
    t = log_n - (weights @ log_n) / weights_total
    y = log_sizes - shapes
    y = y - (y @ weights)[:, None] / weights_total
    information = weights @ t**2
    slopes = y @ (weights * t) / information
    return slopes, ((y - slopes[:, None] * t) ** 2) @ weights, 1 / information


def _union(slopes, chi2, variance: float, cut: float) -> tuple[float, float]:
    room = cut - (chi2 - chi2.min())
    inside = room >= 0
    half = np.sqrt(variance * room[inside])
    return float((slopes[inside] - half).min()), float((slopes[inside] + half).max())


def _aggregate(samples: Mapping[int, Sequence[float]]):
    """Return widths, log rms, variances of log rms, their degrees of freedom, and what was left out and why."""
    widths, squares, counts, reasons = [], [], [], []
    for n in sorted(samples):
        x = np.asarray(samples[n], float)
        finite = x[np.isfinite(x)]
        if len(finite) < len(x):
            reasons.append(f"At width {n} a size is not finite.")
        elif finite.any():
            top = finite.max()
            squares.append((math.log(top), (finite / top) ** 2))
            widths.append(n)
            counts.append(len(finite))
    if widths and len(widths) + len(reasons) < len(samples):
        reasons.append("At some widths every size is zero.")
    means = np.array([sq.mean() for _, sq in squares])
    own = np.array([sq.var(ddof=1) / sq.mean() ** 2 if len(sq) > 1 else 0.0 for _, sq in squares])
    spread, dof = smooth(np.log(np.asarray(widths, float)), own, np.array(counts) - 1)
    counts = np.maximum(counts, 1)
    # log of a mean of m squares is low by spread / 2m to second order
    logs = np.array([top for top, _ in squares]) + 0.5 * np.log(means) + spread / (4 * counts)
    variances = np.maximum(spread / (4 * counts), _FLOOR**2) if dof else np.full(len(widths), 1.0)
    return widths, logs, variances, dof, " ".join(reasons)


def smooth(log_n: np.ndarray, own: np.ndarray, dof: np.ndarray) -> tuple[np.ndarray, int]:
    """Return relative variances that are smooth in the width: the variance of few seeds is itself noise."""
    good = (own > 0) & (dof > 0)
    if not good.any():
        return np.zeros(len(own)), int(dof.sum())
    weights = np.where(good, dof, 0.0)
    logs = np.log(np.where(good, own, 1.0))
    center = (weights @ log_n) / weights.sum()
    spread = weights @ (log_n - center) ** 2
    slope = float(np.clip(weights @ (logs * (log_n - center)) / spread, -2.0, 1.0)) if spread > 0 else 0.0
    # geometric means of chi-squares are low: scale so that the arithmetic mean fits
    shape = np.exp(slope * (log_n - center))
    smooth = shape * (weights @ (own / shape)) / weights.sum()
    trust = 4.0
    return (dof * own + trust * smooth) / (dof + trust), int(dof.sum())


def judge(fit: ExponentFit, predicted: Fraction | None, tolerance: Fraction = Fraction(1, 10)) -> Verdict:
    """Return the verdict on a predicted exponent; None predicts exact zero. See ``judge_with_reason``."""
    return judge_with_reason(fit, predicted, tolerance)[0]


def judge_with_reason(fit: ExponentFit, predicted: Fraction | None,
                      tolerance: Fraction = Fraction(1, 10)) -> tuple[Verdict, str]:
    """Return the verdict and the sentence that gives its reason.

    Refuted: the prediction is outside of the *outer* interval widened by the tolerance, so that not even a leading
    term hidden under the next order explains the data. Confirmed: the interval is short and, widened by the
    tolerance, holds the prediction. Inconclusive: all else.

    Example:
        >>> fit = ExponentFit(0.01, -0.02, 0.04, (-0.03, 0.2), (64,), (1.0,), (0.01,), "A n^e")
        >>> [judge(fit, Fraction(k, 4)).name for k in (0, 1, 2)]
        ['CONFIRMED', 'INCONCLUSIVE', 'REFUTED']
    """
    if predicted is None:
        if fit.is_zero or (fit.sizes and max(fit.sizes) < _ROUNDING_ZERO):
            return Verdict.CONFIRMED, "Every size is zero."
        if fit.sizes:
            return Verdict.REFUTED, f"Predicted to vanish, but the size is {max(fit.sizes):.3g}."
        return Verdict.INCONCLUSIVE, fit.reason
    if fit.is_zero:
        return Verdict.REFUTED, "Every size is exactly zero."
    p, tol = float(predicted), float(tolerance)
    if fit.outer[0] - tol > p or p > fit.outer[1] + tol:
        return Verdict.REFUTED, Verdict.REFUTED.value
    if math.isnan(fit.slope):
        return Verdict.INCONCLUSIVE, fit.reason
    if fit.half_width > WIDEST:
        return Verdict.INCONCLUSIVE, (f"The interval [{fit.low:.2f}, {fit.high:.2f}] is too wide; "
                                      "use more widths or seeds.")
    if fit.low - tol <= p <= fit.high + tol:
        return Verdict.CONFIRMED, Verdict.CONFIRMED.value
    return Verdict.INCONCLUSIVE, ("The slope differs, but a leading term hidden under the next order would explain it; "
                                  "use larger widths.")


def fit_and_judge(samples: Mapping[int, Sequence[float]], predicted: Fraction | None, *,
                  tolerance: Fraction = Fraction(1, 10), order: Fraction = Fraction(1, 2),
                  checks: int = 1) -> tuple[ExponentFit, Verdict, str]:
    """Fit an exponent and judge a prediction; a refutation has to survive without the smaller third of the widths.

    An exponent says what happens at large widths. Small ones may be governed by what no second order describes,
    such as an average that rare events make up until there are enough coordinates to see some. So what all widths
    together refute is looked at again without the smallest third of them
    (with at least five left): if these, fitted on their own, do not refute it too, it is inconclusive.

    Args:
        samples, order, checks: as for ``fit_exponent``.
        predicted, tolerance: as for ``judge``.

    Returns:
        The fit of all widths, the verdict and its reason.

    Example:
        >>> sizes = {4**k: [1 + 100 * math.exp(-(2**k) / 6)] * 2 for k in range(3, 8)}  # n^0, but for small widths
        >>> sizes |= {2 * 4**k: [1 + 100 * math.exp(-(2**k) / 4)] * 2 for k in range(3, 7)}
        >>> judge(fit_exponent(sizes), Fraction(0)).name
        'REFUTED'
        >>> [fit_and_judge(sizes, Fraction(e))[1].name for e in (0, -1, 1)]
        ['INCONCLUSIVE', 'REFUTED', 'REFUTED']
    """
    fit = fit_exponent(samples, order=order, checks=checks)
    verdict, reason = judge_with_reason(fit, predicted, tolerance)
    keep = fit.widths[-max(_FEWEST_FOR_REFUTATION, len(fit.widths) - len(fit.widths) // 3):]
    if verdict is Verdict.REFUTED and math.isfinite(fit.slope) and predicted is not None and keep != fit.widths:
        large = fit_exponent({n: samples[n] for n in keep}, order=order, checks=checks)
        if judge(large, predicted, tolerance) is not Verdict.REFUTED:
            return fit, Verdict.INCONCLUSIVE, (f"The slope differs, but not beyond doubt from width {keep[0]} on; "
                                               "use larger widths.")
    return fit, verdict, reason
