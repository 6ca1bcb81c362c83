r"""Limits from a population: the program run at a width of our choosing, on samples that fill the space evenly."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorprog.errors import NotCoveredError, RunError
from tensorprog.exponents.affine import Values
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run
from tensorprog.finite.sobol import SobolDraws, columns
from tensorprog.program.instructions import MatrixType, Outer, VectorType
from tensorprog.program.program import Program, spell

#: Confidence of the stated errors.
CONFIDENCE = 0.95
_FIRST, _LARGEST, _LARGEST_FORMED = 1 << 10, 1 << 20, 1 << 12
#: A scrambled net's error falls by 2^(3/2) at most when it doubles: a larger drop is luck in estimating the spread.
_FASTEST = 2.0**1.5
_ROUNDING = 1e-12
_OVERFLOW = 1e150  # of which the square still is a number
#: Whether averages concentrate is seen from plain draws at these widths and so many replicates.
_NARROW, _WIDE, _WITNESSES = 1 << 6, 1 << 12, 12


@dataclass(frozen=True)
class Estimate:
    """A sampled limit.

    Args:
        value: of a scalar its limit; of a vector E Z, the average coordinate.
        error: half the 95% interval, bias included.
        method: "sampled".
        size: the population; ``replicates``: how many independent ones.
        second: of a vector, the estimate of E Z^2.
        samples: of a vector, coordinates that were asked to be kept, shape (kept,); those of one index belong
            together across vectors.
    """

    value: float
    error: float
    method: str = "sampled"
    size: int = 0
    replicates: int = 0
    second: Estimate | None = None
    samples: np.ndarray | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict:
        """Return plain data."""
        out = {"value": self.value, "error": self.error, "method": self.method, "size": self.size,
               "replicates": self.replicates}
        return out if self.second is None else {**out, "second": self.second.to_json()}

    def __str__(self) -> str:
        digits = max(0, 1 - math.floor(math.log10(self.error))) if self.error > 0 else 15
        return f"{self.value:.{min(digits, 15)}f} ± {self.error:.2g}"


def sample(program: Program, names: Iterable[str] | str, *, values: Values | None = None, tol: float = 1e-3,
           seed: int = 0, size: int | None = None, replicates: int = 8, budget: float = 10.0,
           keep: int = 0, trusted: bool = False) -> dict[str, Estimate]:
    r"""Return the limits of scalars and the moments of vectors of a program, by running it on populations.

    Coordinates of the vectors of a program are, in the limit, samples of one joint law; a run at width N is a
    population of N samples of it, drawn conditionally use by use (``LazyGaussian``), on scrambled Sobol columns
    (``SobolDraws``). Independent scrambles give the standard error, the population of half the size a bound on the
    bias, which is O(1/N): the stated error is ``t s / sqrt(replicates)``, Student's t at 95%, plus that by which the
    two sizes differ beyond their own errors. Populations grow until every error is below ``tol``.
    The cost per line is that of N coordinates, whatever the width of the network.

    Args:
        program: all variables of order 1, scalars averages over growing axes ("normal form").
        names: of scalars and vectors, order n^0.
        values: the unknown exponents of the program.
        tol: asked of the error, relative to max(1, \|value\|).
        seed: of all randomness, a whole number >= 0.
        size: the population, instead of growing it until ``tol``.
        replicates: independent populations, at least 2.
        budget: seconds after which no larger population is begun.
        keep: coordinates of vectors to keep, for histograms.
        trusted: what is asked for is known to concentrate; otherwise a few plain runs are asked first.

    Returns:
        name -> ``Estimate``; its ``error`` may exceed ``tol`` if the budget did not suffice.

    Raises:
        ProgramError: for an unknown name. RunError: for a matrix, or a population that is not finite.
        NotCoveredError: if what is asked for does not concentrate as the width grows, so that it has no limit.

    Example:
        >>> from tensorprog.program.text import parse
        >>> p = parse('''
        ... dim n
        ... matrix W : n x n ~ N(0, 1/n)
        ... vector x : n ~ N(0, 1)
        ... y = W.T @ relu(W @ x)
        ... q = mean(x * y)
        ... ''')
        >>> found = sample(p, ["q", "y"])
        >>> q, y2 = found["q"], found["y"].second
        >>> q.error < 1e-3, abs(q.value - 1 / 2) < 3 * q.error, abs(y2.value - 3 / 4) < 3 * y2.error
        (True, True, True)

    Source: yang2020matrix (the Master Theorem); owen1997scrambled (randomized nets).
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    for name in names:
        if isinstance(program.type_of(name), MatrixType):
            raise RunError(name, name, "a matrix has no limit of its own", "ask for a product with it")
    if replicates < 2 or (size is not None and size < 2):
        raise RunError("sample", (size, replicates), "an error needs two populations", "use 2 or more")
    start = time.monotonic()
    population = _Population(program, names, values or {}, seed)
    if not trusted:
        population.concentrates()
    n = size // 2 if size else _FIRST
    largest = size or (_LARGEST_FORMED if any(_forms_entries(line) for line in program.lines) else _LARGEST)
    before: _Round | None = None
    while True:
        began = time.monotonic()
        now = population.measure(n, replicates, keep)
        errors = now.errors(before)
        took, spent = time.monotonic() - began, time.monotonic() - start
        reached = before is not None and not size and bool(np.all(errors <= tol * np.maximum(1.0, abs(now.mean))))
        nothing_left = 2 * n > largest or (before is not None and not size and spent + 2.2 * took > budget)
        if reached or nothing_left:
            return population.named(now, errors)
        n, before = size if size else 2 * n, now


def _forms_entries(line) -> bool:
    return isinstance(line, Outer) and not line.rule.linear


class _Round:
    """What several populations of one size say: ``table`` of shape (replicates, quantities)."""

    def __init__(self, n: int, table: np.ndarray, samples: dict[str, np.ndarray]):
        self.n, self.table, self.samples = n, table, samples
        self.mean = table.mean(axis=0)
        self.spread = table.std(axis=0, ddof=1)

    @property
    def replicates(self) -> int:
        return len(self.table)

    def errors(self, before: _Round | None) -> np.ndarray:
        """Return half the intervals; ``before`` is the round of half the size."""
        from scipy import stats

        t = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.replicates - 1)) / math.sqrt(self.replicates)
        rounding = _ROUNDING * np.maximum(1.0, abs(self.mean))
        # replicates that agree exactly say nothing of what none of them saw: at 95%, events of up to 3 in all samples
        unseen = 3 * np.maximum(1.0, abs(self.mean)) / (self.n * self.replicates)
        rounding = np.where(self.spread == 0, unseen, rounding)
        if before is None:
            return t * self.spread + rounding
        sampling = t * np.maximum(self.spread, before.spread / _FASTEST)
        drift = abs(self.mean - before.mean)
        return sampling + np.maximum(0.0, drift - np.hypot(sampling, t * before.spread)) + rounding


class _Population:
    """A program, the quantities asked of it, and how they are measured."""

    def __init__(self, program: Program, names: Sequence[str], values: Values, seed: int):
        self.program, self.names, self.values, self.seed = program, names, values, seed
        self.vectors = [isinstance(program.type_of(name), VectorType) for name in names]

    def measure(self, n: int, replicates: int, keep: int = 0) -> _Round:
        counts = columns(self.program, n)
        found = [self._one(n, SobolDraws(n, r, counts, base=self.seed), -(-keep // replicates))
                 for r in range(replicates)]
        kept = {x: np.concatenate([samples[x] for _, samples in found]) for x in found[0][1]}
        table = np.array([row for row, _ in found])
        for name, column in zip(self._owners(), table.T, strict=True):
            if not np.all(np.abs(column) < _OVERFLOW):
                raise RunError(spell(self.program.line_of(name)), name, "the population is not finite",
                               "look for a variable that grows with the width: show the program's exponents")
        return _Round(n, table, kept)

    def _one(self, n: int, draws: Draws, keep: int = 0) -> tuple[list[float], dict[str, np.ndarray]]:
        result = run(self.program, n, draws.seed, values=self.values, draws=draws, keep=self.names)
        row, kept = [], {}
        for name, is_vector in zip(self.names, self.vectors, strict=True):
            x = result[name]
            if is_vector:
                row += [float(x.mean()), float(np.dot(x, x)) / len(x)]
                if keep:
                    kept[name] = x[:keep].copy()
            else:
                row.append(x)
        return row, kept

    def _owners(self) -> list[str]:
        return [name for name, is_vector in zip(self.names, self.vectors, strict=True) for _ in range(1 + is_vector)]

    def concentrates(self) -> None:
        """Refuse what has no limit: fluctuations of an average fall like N^(-1/2), those of a random limit do not.

        Sobol columns would hide it: the sum of x*v over n^(1/2) is zero for orthogonal columns, and N(0, 1) in truth.
        """
        growth = min((d.growth for d in self.program.dims.values() if not d.is_fixed), default=None)
        if growth is None or any(_forms_entries(line) for line in self.program.lines):
            return
        threshold = 16.0 * (_NARROW / _WIDE) ** float(growth)
        if threshold > 0.5:
            return
        spreads = []
        for n in (_NARROW, _WIDE):
            rows = [self._one(n, Draws(n, r, data_seed=r, cache=False))[0] for r in range(_WITNESSES)]
            if not np.all(np.abs(rows) < _OVERFLOW):
                return  # ``measure`` names the variable
            spreads.append(np.std(rows, axis=0))
        scale = np.maximum(1.0, np.abs(rows).max(axis=0))
        for name, narrow, wide, s in zip(self._owners(), *spreads, scale, strict=True):
            if wide > 1e-9 * s and wide**2 > threshold * narrow**2:
                raise NotCoveredError(
                    spell(self.program.line_of(name)), float(wide),
                    "this does not concentrate as the width grows: it has no deterministic limit",
                    "ask for its mean square, or for the kernel of the vectors behind it")

    def named(self, result: _Round, errors: np.ndarray) -> dict[str, Estimate]:
        """Return the estimates by name."""
        pairs = iter(zip(result.mean, errors, strict=True))

        def estimate(**more) -> Estimate:
            value, error = next(pairs)
            return Estimate(float(value), float(error), size=result.n, replicates=result.replicates, **more)

        out = {}
        for name, is_vector in zip(self.names, self.vectors, strict=True):
            first = estimate()
            out[name] = first if not is_vector else Estimate(
                first.value, first.error, size=first.size, replicates=first.replicates, second=estimate(),
                samples=result.samples.get(name))
        return out


__all__ = ["CONFIDENCE", "Estimate", "sample"]
