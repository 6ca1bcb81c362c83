"""A Gaussian limit against values at finite width: is v.x/sqrt(n) distributed as it should be?"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tensorprog.errors import RunError
from tensorprog.exponents.affine import Values
from tensorprog.finite.fit import Verdict
from tensorprog.finite.numpy_backend import run
from tensorprog.program.program import Program

#: Refuted if the distribution at the two largest widths is this improbable; confirmed if the variance is known this
#: well, relative to the limit, and agrees.
_IMPROBABLE, _RESOLUTION = 1e-3, 0.2


@dataclass(frozen=True, slots=True)
class GaussianRow:
    """One width: mean and variance over seeds with 99% intervals, and the probability of the Kolmogorov distance."""

    n: int
    seeds: int
    mean: float
    mean_low: float
    mean_high: float
    variance: float
    low: float
    high: float
    probability: float


@dataclass(frozen=True)
class GaussianCheck:
    """What values at finite width say of a limit N(mean, variance): rows by width, a verdict and its reason."""

    name: str
    mean: float
    variance: float
    rows: tuple[GaussianRow, ...]
    verdict: Verdict
    reason: str

    _HEAD = ("width", "seeds", "mean", "99% interval", "variance", "99% interval", "probability")

    def to_json(self) -> dict:
        """Return plain data for a JSON object."""
        rows = [{k: getattr(r, k) for k in GaussianRow.__slots__} for r in self.rows]
        return {"name": self.name, "limit": {"mean": self.mean, "variance": self.variance}, "rows": rows,
                "verdict": self.verdict.name.lower(), "reason": self.reason}

    def __str__(self) -> str:
        rows = [self._HEAD, *((str(r.n), str(r.seeds), f"{r.mean:.4g}", f"[{r.mean_low:.4g}, {r.mean_high:.4g}]",
                               f"{r.variance:.4g}", f"[{r.low:.4g}, {r.high:.4g}]", f"{r.probability:.2g}")
                              for r in self.rows)]
        wide = [max(len(r[i]) for r in rows) for i in range(len(self._HEAD))]
        table = ["  ".join(x.rjust(w) for x, w in zip(r, wide, strict=True)).rstrip() for r in rows]
        told = f"{self.name} -> N({self.mean:.6g}, {self.variance:.6g}): {self.verdict.name.lower()}"
        return "\n".join([*table, told + (f" ({self.reason})" if self.reason else "")])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def check_gaussian(program: Program, name: str, mean: float, variance: float, *,
                   widths: Iterable[int] = (256, 1024, 4096), seeds: int = 1000, values: Values | None = None,
                   map: Callable[..., Iterable] = map, data_seed: int = 0, method: str = "auto") -> GaussianCheck:
    """Compare a scalar's values over seeds with N(mean, variance), width by width.

    Args:
        widths: at least two; the verdict is read from the two largest.
        seeds: replicates at every width; 1000 know a variance to 12%.
        values, data_seed, method: as for ``run``. map: like ``map``, e.g. that of a ProcessPoolExecutor.

    Raises:
        RunError: fewer than two widths or 20 seeds, or a limit that is not a Gaussian of positive variance.

    Example:
        >>> from tensorprog.program.text import parse
        >>> p = parse("dim n\\nvector v, x : n ~ N(0, [[1, 0], [0, 1]])\\nf = sum(v * relu(x))/n^(1/2)")
        >>> [check_gaussian(p, "f", 0, v, seeds=400).verdict.name for v in (0.5, 0.8)]
        ['INCONCLUSIVE', 'REFUTED']
    """
    widths = sorted(widths)
    if len(widths) < 2 or seeds < 20 or not variance > 0:
        raise RunError(f"confirm {name}", (widths, seeds, variance), "a Gaussian of positive variance is checked at two"
                       " widths or more, over 20 seeds or more", "widths=(256, 1024), seeds=1000")
    jobs = [(program, name, n, seed, values, data_seed, method) for n in widths for seed in range(seeds)]
    found = np.array(list(map(_value, jobs))).reshape(len(widths), seeds)
    rows = tuple(_row(n, xs, mean, variance) for n, xs in zip(widths, found, strict=True))
    return GaussianCheck(name, mean, variance, rows, *_judge(rows, mean, variance))


def _value(job) -> float:
    program, name, n, seed, values, data_seed, method = job
    found = run(program, n, seed, values=values, keep=[name], data_seed=data_seed, method=method)[name]
    return float(np.asarray(found).reshape(-1)[0])


def _row(n: int, xs: np.ndarray, mean: float, variance: float) -> GaussianRow:
    from scipy import stats

    k = len(xs)
    m, v = float(xs.mean()), float(xs.var(ddof=1))
    half = float(stats.t.ppf(0.995, k - 1)) * math.sqrt(v / k)
    kurtosis = float(np.mean((xs - m) ** 4)) / v**2 if v > 0 else 3.0
    spread = float(stats.norm.ppf(0.995)) * math.sqrt(max(kurtosis - 1, 2 / k) / k)
    p = float(stats.kstest(xs, "norm", args=(mean, math.sqrt(variance))).pvalue) if np.all(np.isfinite(xs)) else 0.0
    return GaussianRow(n, k, m, m - half, m + half, v, v * math.exp(-spread), v * math.exp(spread), p)


def _beyond(x: float, middle: float, low: float, high: float, scale: Callable[[float], float]) -> bool:
    """Return whether x is outside the 99% interval widened to 99.9%."""
    return abs(scale(x) - scale(middle)) > 1.28 * (scale(high) - scale(low)) / 2


def _judge(rows: tuple[GaussianRow, ...], mean: float, variance: float) -> tuple[Verdict, str]:
    last = rows[-1]
    if all(r.probability < _IMPROBABLE for r in rows[-2:]):
        return Verdict.REFUTED, f"at the two largest widths the distribution has probability {last.probability:.1g}"
    if all(_beyond(variance, r.variance, r.low, r.high, math.log) for r in rows[-2:]):
        return Verdict.REFUTED, f"the variance at the largest width is {last.variance:.4g}"
    if all(_beyond(mean, r.mean, r.mean_low, r.mean_high, float) for r in rows[-2:]):
        return Verdict.REFUTED, f"the mean at the largest width is {last.mean:.4g}"
    agrees = last.low <= variance <= last.high and last.mean_low <= mean <= last.mean_high
    if not agrees or last.probability < _IMPROBABLE:
        return Verdict.INCONCLUSIVE, "mean, variance or distribution disagree at the largest width; use more seeds"
    if math.log(last.high / last.low) / 2 > _RESOLUTION * 0.75:
        return Verdict.INCONCLUSIVE, "the variance is not known well enough; use more seeds"
    return Verdict.CONFIRMED, ""
