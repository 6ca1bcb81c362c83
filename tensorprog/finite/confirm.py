"""Predicted exponents against measured ones: a table of checks, and one verdict."""

from __future__ import annotations

import builtins
import html
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tensorprog.exponents.affine import Values
from tensorprog.finite.execute import matrix_shape
from tensorprog.finite.fit import ExponentFit, Verdict, fit_and_judge
from tensorprog.finite.sweep import Sweep, sweep
from tensorprog.program.instructions import Outer
from tensorprog.program.program import Program

#: Overall confirmed if none is refuted and at least this share is confirmed.
ENOUGH = Fraction(9, 10)
_FEWEST_SEEDS, _MOST_SEEDS = 8, 4096
_FEWEST_WIDTHS = 6


@dataclass(frozen=True, slots=True)
class Check:
    """One prediction: ``predicted`` is the exponent, None for exact zero; ``fit`` what was measured."""

    what: str
    predicted: Fraction | None
    fit: ExponentFit
    verdict: Verdict
    reason: str

    def to_json(self) -> dict:
        """Return plain data: the exponent as the string of a rational ("0 exactly" is null), numbers or null."""
        numbers = {"measured": self.fit.slope, "low": self.fit.low, "high": self.fit.high}
        return {"what": self.what, "predicted": None if self.predicted is None else str(self.predicted),
                **{k: round(x, 4) if math.isfinite(x) else None for k, x in numbers.items()},
                "verdict": self.verdict.name.lower(), "reason": self.reason}

    def cells(self) -> tuple[str, ...]:
        """Return the row of a table."""
        f = self.fit
        measured = "zero" if f.is_zero else "-" if math.isnan(f.slope) else f"{f.slope:.3f}"
        interval = f"[{f.low:.3f}, {f.high:.3f}]" if math.isfinite(f.low) else ""
        return (self.what, "zero" if self.predicted is None else str(self.predicted), measured, interval,
                self.verdict.name.lower(), "" if self.verdict is Verdict.CONFIRMED else self.reason)


@dataclass(frozen=True)
class Confirmation:
    """All checks of a program, and the sweep behind them.

    Args:
        checks: one a prediction.
        widths: the widths that were run.
        seeds: how many seeds at each of them.
        seconds: what it took.
        stopped: where the predictions end, the label of the first blow-up; None if they go to the last step.
    """

    checks: tuple[Check, ...]
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    seconds: float = 0.0
    stopped: str | None = None
    sweep: Sweep | None = field(default=None, repr=False)

    _HEAD = ("what", "predicted", "measured", "99% interval", "verdict", "reason")

    @property
    def verdict(self) -> Verdict:
        """Refuted if any check is; confirmed if nine in ten are; else inconclusive."""
        verdicts = [c.verdict for c in self.checks]
        if Verdict.REFUTED in verdicts:
            return Verdict.REFUTED
        confirmed = verdicts.count(Verdict.CONFIRMED)
        return Verdict.CONFIRMED if verdicts and confirmed >= ENOUGH * len(verdicts) else Verdict.INCONCLUSIVE

    def __getitem__(self, what: str) -> Check:
        """Return the check of a name or a group's label."""
        return {c.what: c for c in self.checks}[what]

    def to_json(self) -> dict:
        """Return plain data for a JSON object."""
        return {"checks": [c.to_json() for c in self.checks], "verdict": self.verdict.name.lower(),
                "widths": list(self.widths), "seeds": list(self.seeds), "stopped": self.stopped}

    @property
    def _end(self) -> str:
        return "" if self.stopped is None else f"predictions end at {self.stopped}, the first blow-up"

    def __str__(self) -> str:
        rows = [self._HEAD, *(c.cells() for c in self.checks)]
        wide = [max(len(r[i]) for r in rows) for i in range(len(self._HEAD))]
        table = "\n".join("  ".join(x.ljust(w) for x, w in zip(r, wide, strict=True)).rstrip() for r in rows)
        runs = f"{min(self.widths, default=0)} to {max(self.widths, default=0)}, {sum(self.seeds)} runs"
        end = f"\n{self._end}" if self._end else ""
        return f"{table}{end}\n{self.verdict.name.lower()} (widths {runs})"

    def _repr_html_(self) -> str:
        def row(cells, tag):
            return "<tr>" + "".join(f"<{tag}>{html.escape(x)}</{tag}>" for x in cells) + "</tr>"

        body = "".join(row(c.cells(), "td") for c in self.checks)
        end = f"<p>{html.escape(self._end)}</p>" if self._end else ""
        return (f"<table><thead>{row(self._HEAD, 'th')}</thead><tbody>{body}</tbody></table>{end}"
                f"<p><b>{self.verdict.name.lower()}</b></p>")


def confirm_exponents(program: Program, predictions: Mapping[str, Fraction | None], *,
                      groups: Mapping[str, Sequence[str]] | None = None, values: Values | None = None,
                      widths: Iterable[int] | None = None, seeds: int | Mapping[int, int] | None = None,
                      tolerance: Fraction = Fraction(1, 10), budget: float = 60.0, order: Fraction | None = None,
                      path: str | os.PathLike | None = None, map: Callable[..., Iterable] = builtins.map,
                      progress: bool = False, dtype: str = "float64", method: str = "auto", backend: str = "numpy",
                      data_seed: int = 0) -> Confirmation:
    """Measure the exponents of a program's variables over widths and seeds and compare them with predictions.

    What is not confirmed at first gets more seeds and larger widths while time remains, also what is refuted:
    a refutation that survives a second round ends it.
    With widths and seeds given, there is one round and no more; its result does not depend on the machine's speed.

    Args:
        predictions: name of a variable, or label of a group -> exponent; None means exactly zero.
        groups: label -> names, measured together by the root mean square of their sizes.
        values: the unknown exponents of the program.
        widths: the scales; by default 2^6 to 2^14 if the random matrices need not be formed, else 2^4 to
            2^11: a wide range tells more than large widths. The budget may leave out the largest.
        seeds: replicates at every width, or width -> replicates, which gives the widths too; by default more at
            small widths, where they are noisier and cheap.
        tolerance: how far a measured exponent may be from the prediction.
        budget: seconds after which no further round is begun.
        order: the step between consecutive orders; by default as ``consecutive`` gives it.
        path, map, progress, dtype, method, backend, data_seed: as for ``sweep``.

    Raises:
        RunError: if a name is no vector or scalar of the program.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> x, y = p.vector("x", n), p.vector("y", n)
        >>> p.output(p.mean(x * y))
        >>> c = confirm_exponents(p, {p.outputs[0]: Fraction(-1, 2), "x": Fraction(0)})
        >>> c.verdict.name, confirm_exponents(p, {p.outputs[0]: Fraction(1, 2)}).verdict.name
        ('CONFIRMED', 'REFUTED')
    """
    start = time.monotonic()
    groups = groups or {}
    measure = {what: tuple(groups.get(what, (what,))) for what in predictions}
    orders = {what: order or consecutive(program, names) for what, names in measure.items()}
    thin = method == "matrix-free" or (method == "auto" and not forms_matrices(program))
    plan = Plan(thin, widths, seeds)
    clock = Clock(map, plan.seconds)

    def ran(seeds: Mapping[int, int], shown: bool) -> Sweep:
        done = sweep({"": (program, values or {})}, seeds, seeds, measure=measure, path=path, map=clock.map,
                     progress=shown, dtype=dtype, method=method, backend=backend, data_seed=data_seed, known=plan.known)
        plan.known = {**plan.known, **done.records}
        return done

    plan.fit_to(budget, lambda n: ran({n: 1}, False))
    previous: set[str] = set()
    while True:
        runs = ran(plan.seeds, progress)
        checks = tuple(_check(runs, what, e, tolerance, orders[what], len(predictions))
                       for what, e in predictions.items())
        open_ones = {c.what for c in checks if c.verdict is Verdict.INCONCLUSIVE}
        refuted = {c.what for c in checks if c.verdict is Verdict.REFUTED}
        settled = bool(refuted & previous) or not (open_ones or refuted)
        previous = refuted
        if settled or not plan.extend(budget - (time.monotonic() - start)):
            break
    return Confirmation(checks, tuple(runs.widths), tuple(runs.counts), time.monotonic() - start, sweep=runs)


def _check(runs: Sweep, what: str, predicted: Fraction | None, tolerance: Fraction, order: Fraction, of: int) -> Check:
    return Check(what, predicted, *fit_and_judge(runs.samples("", what), predicted, tolerance=tolerance, order=order,
                                                 checks=of))


def consecutive(program: Program, names: Iterable[str]) -> Fraction:
    """Return the step between consecutive orders of variables: half the smallest growth of an axis they depend on."""
    growths = program.growths
    if len({g for g in growths.values() if g > 0}) > 1:
        needed = set(names)
        for line in reversed(program.lines):
            if line.out in needed:
                needed.update(line.args)
        types = [program.type_of(x) for x in needed]
        axes = {d.name for t in types for d in (getattr(t, k, None) for k in ("dim", "rows", "cols")) if d is not None}
        growths = {d: growths[d] for d in axes}
    return min((g for g in growths.values() if g > 0), default=Fraction(1)) / 2


def forms_matrices(program: Program) -> bool:
    """Whether an entrywise update makes all entries of a growing matrix."""
    sizes, twice = program.sizes(1 << 16), program.sizes(1 << 18)
    for line in program.lines:
        if isinstance(line, Outer) and not getattr(line.rule, "linear", False):
            rows, cols = (b > a for a, b in zip(matrix_shape(program, line.out, sizes),
                                                 matrix_shape(program, line.out, twice), strict=True))
            if rows and cols:
                return True
    return False


class Clock:
    """A ``map`` that notes the seconds that each width takes."""

    def __init__(self, map: Callable[..., Iterable], seconds: dict[int, float]):
        self._map, self._seconds = map, seconds

    def map(self, function, jobs):
        """Apply ``function`` to all jobs and yield the results."""
        before = time.monotonic()
        for records in self._map(function, jobs):
            now = time.monotonic()
            self._seconds[records[0][0][0]] = (now - before) / len(records)
            before = now
            yield records


class Plan:
    """How many seeds to run at which widths, and how to go on."""

    def __init__(self, thin: bool, widths: Iterable[int] | None, seeds: int | Mapping[int, int] | None):
        if widths is None and isinstance(seeds, Mapping):
            widths = seeds
        self._given = widths is not None and seeds is not None
        self._seed_count, self._fixed_widths = seeds, widths is not None
        chosen = list(widths) if widths is not None else [1 << k for k in (range(6, 15) if thin else range(4, 12))]
        self._widest, self._power = (1 << 20, 1) if thin else (1 << 12, 2)
        self.seeds = {n: seeds[n] for n in chosen} if isinstance(seeds, Mapping) else {
            n: seeds or max(_FEWEST_SEEDS, min(48, (1 << 13) // n)) for n in chosen}
        self.seconds: dict[int, float] = {}
        self.known: Mapping = {}

    def fit_to(self, budget: float, pilot: Callable[[int], object]) -> None:
        """Time one run a width, from the smallest on; leave out widths, and seeds, that the budget does not pay for."""
        if self._given:
            return
        share = budget / 2 / len(self.seeds)
        chosen, self.seeds = self.seeds, {}
        for i, (n, k) in enumerate(sorted(chosen.items())):
            expected = self.seconds[last] * (n / last) ** self._power if (last := max(self.seconds, default=0)) else 0.0
            if not self._fixed_widths and i >= _FEWEST_WIDTHS and expected * _FEWEST_SEEDS > 2 * share:
                break
            pilot(n)
            paid = int(share / max(self.seconds.get(n, 0.0), 1e-5))  # a resumed width has no time
            self.seeds[n] = k if self._seed_count else max(_FEWEST_SEEDS, min(k, paid))

    def extend(self, remaining: float) -> bool:
        """Add the largest round that fits in the remaining seconds; False if none does."""
        if self._given or remaining <= 0:
            return False
        top, least = max(self.seeds), min(self.seeds.values())
        # every width gets the same time: thousands of seeds where they are cheap, a few more where they are not
        share = remaining / 2 / (len(self.seeds) + 1)
        more = {} if self._seed_count else {
            n: min(k + int(share / max(self.seconds.get(n, share), 1e-5)), _MOST_SEEDS) for n, k in self.seeds.items()
        }
        wider = {} if self._fixed_widths or 2 * top > self._widest else {2 * top: least}
        if wider and self._cost(wider) > max(share, remaining / 3):
            wider = {}
        change = {n: k for n, k in {**more, **wider}.items() if k > self.seeds.get(n, 0)}
        if not change or self._cost(change) > remaining:
            return False
        self.seeds.update(change)
        return True

    def _cost(self, change: Mapping[int, int]) -> float:
        top = max(self.seconds, default=1)
        total = 0.0
        for n, k in change.items():
            each = self.seconds.get(n) or self.seconds.get(top, 0.1) * (n / top) ** self._power
            total += (k - self.seeds.get(n, 0)) * each
        return total
