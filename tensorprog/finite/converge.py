"""A limit against the values at finite width: do they tend to it, and as fast as fluctuations of averages do?"""

from __future__ import annotations

import builtins
import html
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import RunError
from tensorprog.exponents.affine import Values
from tensorprog.finite.confirm import Clock, Plan, consecutive, forms_matrices
from tensorprog.finite.fit import CONFIDENCE, ExponentFit, Verdict, fit_and_judge, fit_exponent, smooth
from tensorprog.finite.numpy_backend import run
from tensorprog.finite.sweep import shown
from tensorprog.program.instructions import ScalarType
from tensorprog.program.program import Program, spell

#: The value at infinite width has to be known this well to confirm a limit, relative to the limit, or to a quarter of
#: the fluctuations (times n^(1/2)) if that is more.
RESOLUTION = 0.05
_FEWEST_WIDTHS = 4
_FEWEST_FOR_REFUTATION = 5
#: A limit is refuted only outside an interval of this confidence.
_BEYOND_DOUBT = 0.999
_ROUNDING = 1e-12
#: Widths at which errors are no larger than so many times that of the limit itself say nothing of the rate.
_ABOVE = 5.0
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Row:
    """One width: the ``mean`` over seeds, ``bias``, its distance from the limit, with a 99% interval, the ``spread``
    over seeds, and ``error``, the root mean square distance from the limit.
    """

    n: int
    seeds: int
    mean: float
    bias: float
    low: float
    high: float
    spread: float
    error: float


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """The value at infinite width: ``low, high`` at 99%, ``outer`` at 99.9%."""

    value: float
    low: float
    high: float
    outer: tuple[float, float]


@dataclass(frozen=True)
class Convergence:
    """What values at finite width say of a limit.

    Args:
        name: the scalar.
        limit: what it should tend to; ``limit_error``: how well that is known.
        rows: one a width.
        extrapolated: the value at infinite width as the rows have it; None with too few widths.
        value: the verdict on the limit; ``value_reason``: why.
        fit: the slope of the error; ``predicted``: what it is to be, or faster.
        rate: the verdict on the slope; ``rate_reason``: why.
        seconds: what it took.
    """

    name: str
    limit: float
    limit_error: float
    rows: tuple[Row, ...]
    extrapolated: Extrapolation | None
    value: Verdict
    value_reason: str
    fit: ExponentFit
    predicted: Fraction
    rate: Verdict
    rate_reason: str
    seconds: float = field(default=0.0, compare=False)

    _HEAD = ("width", "seeds", "mean", "bias", "99% interval", "spread", "error")

    @property
    def verdict(self) -> Verdict:
        """Refuted if one of the two questions is; confirmed if both are; else inconclusive."""
        both = {self.value, self.rate}
        if Verdict.REFUTED in both:
            return Verdict.REFUTED
        return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in both else Verdict.CONFIRMED

    def to_json(self) -> dict:
        """Return plain data for a JSON object; what is not a finite number is null."""
        x = self.extrapolated
        return {
            "name": self.name, "limit": self.limit, "limit_error": self.limit_error,
            "rows": [{k: _plain(getattr(r, k)) for k in Row.__slots__} for r in self.rows],
            "extrapolated": None if x is None else {"value": x.value, "low": x.low, "high": x.high},
            "value": {"verdict": self.value.name.lower(), "reason": self.value_reason},
            "rate": {"verdict": self.rate.name.lower(), "reason": self.rate_reason, "predicted": str(self.predicted),
                     "slope": _plain(self.fit.slope), "low": _plain(self.fit.low), "high": _plain(self.fit.high)},
            "verdict": self.verdict.name.lower(),
        }

    def _cells(self) -> list[tuple[str, ...]]:
        return [(str(r.n), str(r.seeds), f"{r.mean:.6g}", f"{r.bias:+.2e}", f"[{r.low:+.1e}, {r.high:+.1e}]",
                 f"{r.spread:.2e}", f"{r.error:.2e}") for r in self.rows]

    def _answers(self) -> list[str]:
        x, f = self.extrapolated, self.fit
        found = "" if x is None else f", extrapolated {x.value:.6g} in [{x.low:.6g}, {x.high:.6g}]"
        slope = "zero" if f.is_zero else f"{f.slope:.3f} in [{f.low:.3f}, {f.high:.3f}]"
        slope = "unknown" if math.isnan(f.slope) else slope
        known = f" ± {self.limit_error:.1g}" if self.limit_error else ""

        def told(verdict: Verdict, reason: str) -> str:
            return f"{verdict.name.lower()}" + ("" if verdict is Verdict.CONFIRMED else f" ({reason})")

        return [f"{self.name} -> {self.limit:.6g}{known}{found}: {told(self.value, self.value_reason)}",
                f"slope of the error {slope}, predicted {self.predicted} or less: "
                f"{told(self.rate, self.rate_reason)}"]

    def __str__(self) -> str:
        rows = [self._HEAD, *self._cells()]
        wide = [max(len(r[i]) for r in rows) for i in range(len(self._HEAD))]
        table = ["  ".join(x.rjust(w) for x, w in zip(r, wide, strict=True)).rstrip() for r in rows]
        return "\n".join([*table, *self._answers(), f"{self.verdict.name.lower()}"])

    def _repr_html_(self) -> str:
        def row(cells, tag):
            return "<tr>" + "".join(f"<{tag}>{html.escape(x)}</{tag}>" for x in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self._cells())
        answers = "".join(f"<p>{html.escape(x)}</p>" for x in self._answers())
        return (f"<table><thead>{row(self._HEAD, 'th')}</thead><tbody>{body}</tbody></table>{answers}"
                f"<p><b>{self.verdict.name.lower()}</b></p>")


def converge(program: Program, name: str, limit, widths: Iterable[int] | None = None,
             seeds: int | Mapping[int, int] | None = None, *, values: Values | None = None,
             predicted: Fraction | None = None, tolerance: Fraction = Fraction(1, 10), budget: float = 30.0,
             map: Callable[..., Iterable] = builtins.map, progress: bool = False, dtype: str = "float64",
             method: str = "auto", data_seed: int = 0) -> Convergence:
    r"""Measure a scalar at finite widths and judge its limit, and the rate at which it is approached.

    *Value*: means over seeds are fitted by ``v + a x + b x^2``, ``x = n^(-1/2)``. The limit is confirmed if the
    interval of v is short and holds it; refuted if it lies beyond a 99.9% interval, also without the smaller
    third of the widths. *Rate*: the slope of the root mean square of ``value - limit`` (as ``fit_exponent`` has it)
    is -1/2 if fluctuations of averages dominate, less where they cancel; confirmed if no interval of 99% reaches
    half-way to the next slower order. A wrong limit makes errors level off.
    What is inconclusive, or refuted for the first time, gets more seeds and larger widths while time remains; with
    widths and seeds given there is one round, and the result does not depend on the machine's speed.

    Args:
        program: any program; ``name`` is one of its scalars.
        limit: a number, or anything with a ``value`` and an ``error`` such as an ``Estimate``.
        widths: the scales; by default 2^6 to 2^14, or 2^4 to 2^11 if random matrices have to be formed.
        seeds: replicates at every width, or width -> replicates.
        values: the unknown exponents of the program.
        predicted: the slope; by default minus half the smallest growth of an axis, -1/2 for ordinary widths.
        tolerance: how far the slope may be above the prediction.
        budget: seconds after which no further round is begun.
        map, progress, dtype, method, data_seed: as for ``sweep``.

    Raises:
        ProgramError: for an unknown name. RunError: if it is not a scalar, or the limit is not a finite number.

    Example:
        >>> from tensorprog.program.text import parse
        >>> p = parse('''
        ... dim n
        ... matrix W : n x n ~ N(0, 1/n)
        ... vector x : n ~ N(0, 1)
        ... q = mean(x * (W.T @ relu(W @ x)))
        ... ''')
        >>> widths = [64, 128, 256, 512, 1024, 2048, 4096]
        >>> [converge(p, "q", v, widths, seeds=100).verdict.name for v in (Fraction(1, 2), Fraction(2, 5))]
        ['CONFIRMED', 'REFUTED']
    """
    start = time.monotonic()
    if not isinstance(program.type_of(name), ScalarType):
        raise RunError(spell(program.line_of(name)), name, "only a scalar tends to a number", "average it: mean(...)")
    target, uncertain = _number(limit)
    if predicted is None:
        predicted = -consecutive(program, [name])
    thin = method == "matrix-free" or (method == "auto" and not forms_matrices(program))
    plan = Plan(thin, widths, seeds)
    clock = Clock(map, plan.seconds)
    how = {"values": values or {}, "dtype": dtype, "method": method, "data_seed": data_seed}
    known: dict[tuple[int, int], float] = {}

    def ran(wanted: Mapping[int, int], visible: bool) -> dict[int, np.ndarray]:
        jobs = []
        for n, count in wanted.items():
            todo = [s for s in range(count) if (n, s) not in known]
            jobs += [_Job(program, name, how, n, tuple(todo[i : i + _AT_ONCE])) for i in range(0, len(todo), _AT_ONCE)]
        results = clock.map(_measure, jobs)
        for records in shown(results, [len(job.seeds) for job in jobs]) if visible else results:
            known.update(records)
        return {n: np.array([known[n, s] for s in range(count)]) for n, count in sorted(wanted.items())}

    plan.fit_to(budget, lambda n: ran({n: 1}, False))
    refuted = False
    while True:
        found = judge_values(ran(plan.seeds, progress), target, uncertain, predicted, tolerance)
        settled = found["verdict"] is Verdict.CONFIRMED or (found["verdict"] is Verdict.REFUTED and refuted)
        refuted = found.pop("verdict") is Verdict.REFUTED
        if settled or not plan.extend(budget - (time.monotonic() - start)):
            return Convergence(name, target, uncertain, predicted=predicted, seconds=time.monotonic() - start, **found)


def judge_values(samples: Mapping[int, np.ndarray], limit: float, limit_error: float = 0.0,
                 predicted: Fraction = Fraction(-1, 2), tolerance: Fraction = Fraction(1, 10)) -> dict[str, Any]:
    """Return the fields of a ``Convergence`` that values of several seeds at several widths decide, and the verdict.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> data = {n: 2 + 3 / n + rng.standard_normal(50) / n**0.5 for n in (64, 256, 1024, 4096, 16384)}
        >>> judge_values(data, 2)["verdict"].name, judge_values(data, 2.1)["verdict"].name
        ('CONFIRMED', 'REFUTED')
    """
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite have their verdict
        return _judged(samples, limit, limit_error, predicted, tolerance)


def _judged(samples, limit, limit_error, predicted, tolerance) -> dict[str, Any]:
    exact = _ROUNDING * max(1.0, abs(limit))
    errors = {n: np.where(np.abs(x - limit) <= exact, 0.0, np.abs(x - limit)) for n, x in samples.items()}
    rows = tuple(_row(n, x, limit, errors[n]) for n, x in samples.items())
    if not any(e.any() for e in errors.values()):
        reason, both = "Every value is the limit, up to rounding.", Verdict.CONFIRMED
        if len(samples) < _FEWEST_WIDTHS:
            reason, both = f"{_FEWEST_WIDTHS} widths are needed.", Verdict.INCONCLUSIVE
        return {"rows": rows, "extrapolated": None, "value": both, "value_reason": reason,
                "fit": fit_exponent({n: list(e) for n, e in errors.items()}), "rate": both, "rate_reason": reason,
                "verdict": both}
    value, value_reason, found = _judge_value(rows, limit, limit_error, -float(predicted))
    clear = {n: list(e) for n, e in errors.items() if not limit_error or _rms(e) > _ABOVE * limit_error}
    fit = fit_exponent(clear, order=-predicted)
    # faster than predicted is as good
    goal = Fraction(fit.slope).limit_denominator(1000) if -math.inf < fit.slope < predicted else predicted
    fit, rate, rate_reason = fit_and_judge(clear, goal, tolerance=tolerance, order=-predicted)
    within = fit.low - float(tolerance) <= float(predicted) and fit.high < float(predicted) / 2
    if rate is Verdict.INCONCLUSIVE and within:  # however long the interval, it ends before the next slower order
        rate, rate_reason = Verdict.CONFIRMED, Verdict.CONFIRMED.value
    if len(clear) < len(errors) and rate is not Verdict.CONFIRMED:
        rate = Verdict.INCONCLUSIVE
        rate_reason = f"From width {min(n for n in errors if n not in clear)} on, errors are those of the limit itself."
    both = {value, rate}
    verdict = next((v for v in (Verdict.REFUTED, Verdict.INCONCLUSIVE) if v in both), Verdict.CONFIRMED)
    return {"rows": rows, "extrapolated": found, "value": value, "value_reason": value_reason, "fit": fit, "rate": rate,
            "rate_reason": rate_reason, "verdict": verdict}


# --------------------------------------------------------------------------------------------------- the value


def _judge_value(rows: tuple[Row, ...], limit: float, limit_error: float,
                 order: float) -> tuple[Verdict, str, Extrapolation | None]:
    good = [r for r in rows if math.isfinite(r.mean) and math.isfinite(r.spread)]
    if len(good) < len(rows):
        return Verdict.INCONCLUSIVE, "Some values are not finite.", None
    if len(good) < _FEWEST_WIDTHS or any(r.seeds < 2 for r in good):
        return Verdict.INCONCLUSIVE, f"{_FEWEST_WIDTHS} widths with two seeds or more are needed.", None
    found, scale = extrapolate(good, order)
    if _outside(found, limit, limit_error):
        keep = good[-max(_FEWEST_FOR_REFUTATION, len(good) - len(good) // 3):]
        if len(keep) < _FEWEST_FOR_REFUTATION or _outside(extrapolate(keep, order)[0], limit, limit_error):
            return Verdict.REFUTED, "The values tend to something else.", found
        return Verdict.INCONCLUSIVE, f"The limit differs, but not beyond doubt from width {keep[0].n} on.", found
    if (found.high - found.low) / 2 > RESOLUTION * max(abs(limit), scale):
        return Verdict.INCONCLUSIVE, "The value at infinite width is uncertain; use more widths or seeds.", found
    if found.low - limit_error <= limit <= found.high + limit_error:
        return Verdict.CONFIRMED, "The values tend to the limit, as far as they tell.", found
    return Verdict.INCONCLUSIVE, "The limit differs, but not beyond doubt; use more seeds.", found


def _outside(found: Extrapolation, limit: float, limit_error: float) -> bool:
    return not found.outer[0] - limit_error <= limit <= found.outer[1] + limit_error


def extrapolate(rows: Iterable[Row], order: float = 0.5) -> tuple[Extrapolation, float]:
    """Return the value at infinite width, from ``v + a x + b x^2`` with ``x = n^-order``, and the size of fluctuations.

    Weighted least squares; variances of few seeds are smoothed over the widths, and every mean is known no better
    than up to the order ``x^3`` that the model leaves out. Lack of fit widens the interval.
    """
    from scipy import stats

    rows = list(rows)
    n = np.array([r.n for r in rows], float)
    means, seeds = np.array([r.mean for r in rows]), np.array([r.seeds for r in rows])
    x = n**-order
    spread = np.array([r.spread for r in rows]) / x
    square, dof = smooth(np.log(n), spread**2, seeds - 1)
    fluctuation = float(np.sqrt(np.median(square)))
    scale = max(fluctuation / 4, abs(float(means[-1])))
    deviation = np.sqrt(square * x**2 / seeds + (scale * (x**3 + _ROUNDING)) ** 2) if scale else np.ones(len(n))
    design = np.stack([np.ones(len(n)), x, x**2], axis=1) / deviation[:, None]
    basis, triangle = np.linalg.qr(design)
    inverse = np.linalg.inv(triangle)
    coefficients = inverse @ (basis.T @ (means / deviation))
    misfit = float(np.sum((means / deviation - design @ coefficients) ** 2)) / max(1, len(n) - 3)
    sigma = math.sqrt(float(np.sum(inverse[0] ** 2)) * max(1.0, misfit))
    half, outer = (sigma * float(stats.t.ppf((1 + c) / 2, max(1, dof - 3))) for c in (CONFIDENCE, _BEYOND_DOUBT))
    v = float(coefficients[0])
    return Extrapolation(v, v - half, v + half, (v - outer, v + outer)), scale


def _row(n: int, x: np.ndarray, limit: float, errors: np.ndarray) -> Row:
    from scipy import stats

    mean, bias = float(x.mean()), float((x - limit).mean())
    spread = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1)) if len(x) > 1 else math.inf
    half = t * spread / math.sqrt(len(x)) if len(x) > 1 else math.inf
    return Row(int(n), len(x), mean, bias, bias - half, bias + half, spread, _rms(errors))


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


# ---------------------------------------------------------------------------------------------------- the runs


@dataclass(frozen=True)
class _Job:
    """A scalar of a program at one width and some seeds; plain data, so that it can go to another process."""

    program: Program
    name: str
    how: Mapping[str, Any]
    n: int
    seeds: tuple[int, ...]


def _measure(job: _Job) -> list[tuple[tuple[int, int], float]]:
    return [((job.n, s), run(job.program, job.n, s, **job.how)[job.name]) for s in job.seeds]


def _number(limit) -> tuple[float, float]:
    value = getattr(limit, "value", limit)
    error = float(getattr(limit, "error", 0.0) or 0.0)
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (math.isfinite(found) and math.isfinite(error)):
        raise RunError("converge", limit, "the limit is not a finite number", "give a number, or value and error")
    return found, error


def _plain(x):
    return x if isinstance(x, int) or math.isfinite(x) else None


__all__ = ["Convergence", "Extrapolation", "Row", "converge", "extrapolate", "judge_values"]
