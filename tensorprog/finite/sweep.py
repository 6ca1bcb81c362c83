"""Runs over widths and seeds, kept as they come in a file that survives a kill and can be resumed."""

from __future__ import annotations

import builtins
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorprog.errors import RunError
from tensorprog.exponents.affine import Values
from tensorprog.finite.draws import Draws
from tensorprog.finite.fit import ExponentFit, fit_exponent
from tensorprog.finite.numpy_backend import is_dense, run
from tensorprog.finite.replicates import batch_size, run_replicates
from tensorprog.program.instructions import MatrixType
from tensorprog.program.program import Program

Programs = Mapping[str, tuple[Program, Values]]
_VERSION = 1


@dataclass(frozen=True)
class Sweep:
    """Sizes measured at widths and seeds.

    Args:
        records: (width, seed) -> program's label -> measured label -> size.
    """

    records: Mapping[tuple[int, int], Mapping[str, Mapping[str, float]]]

    def samples(self, program: str, label: str) -> dict[int, list[float]]:
        """Return width -> the sizes of its seeds."""
        out: dict[int, list[float]] = {}
        for (n, _), sizes in sorted(self.records.items()):
            out.setdefault(n, []).append(sizes[program][label])
        return out

    def fit(self, program: str, label: str) -> ExponentFit:
        """Return the exponent of a measured label."""
        return fit_exponent(self.samples(program, label))

    @property
    def widths(self) -> list[int]:
        """The widths, ascending."""
        return sorted({n for n, _ in self.records})

    @property
    def counts(self) -> list[int]:
        """How many seeds each width has."""
        return [sum(m == n for m, _ in self.records) for n in self.widths]

    def __len__(self) -> int:
        return len(self.records)


def sweep(programs: Programs, widths: Iterable[int], seeds: int | Iterable[int] | Mapping[int, int], *,
          measure: Mapping[str, Sequence[str]] | Sequence[str] | None = None, path: str | os.PathLike | None = None,
          map: Callable[..., Iterable] = builtins.map, progress: bool = False, dtype: str = "float64",
          method: str = "auto", backend: str = "numpy", data_seed: int = 0,
          known: Mapping[tuple[int, int], Mapping] | None = None) -> Sweep:
    """Run programs at all widths and seeds and keep the sizes of the variables asked for.

    All programs of one (width, seed) see the same standard normals. A label that stands for several variables has
    the root mean square of their sizes. With ``path`` every finished run is one line of a JSON-lines file, written
    through to the disk; a sweep that was killed continues where it stopped.

    Args:
        programs: label -> (program, values of its unknown exponents).
        widths: the scales.
        seeds: how many (0, 1, ...), which, or width -> how many.
        measure: labels -> names, or names; by default every vector and scalar of the programs.
        path: the file to keep results in.
        map: any executor's ``map``, such as ``ProcessPoolExecutor().map``; results are kept in the order it gives.
        progress: whether to show a progress bar (needs rich).
        dtype, method, backend, data_seed: as for ``run``.
        known: records of an earlier sweep of the same programs and settings, not to be run again.

    Raises:
        RunError: if the file is of another sweep, or a name occurs in none of the programs.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, x = p.matrix("W", n, n), p.vector("x", n)
        >>> p.output(p.mean((W @ x) * x))
        >>> s = sweep({"clt": (p, {})}, [64, 128], seeds=3, measure=["x"])
        >>> len(s), sorted(s.samples("clt", "x"))
        (6, [64, 128])
    """
    labels = _labels(programs, measure)
    settings = {"dtype": dtype, "method": method, "backend": backend, "data_seed": data_seed}
    counts = {int(n): seeds[n] if isinstance(seeds, Mapping) else seeds for n in widths}
    wanted = [(n, s) for n, k in counts.items() for s in (range(k) if isinstance(k, int) else k)]
    book = _Book(path, fingerprint(programs, labels, settings))
    for key, sizes in (known or {}).items():
        if key not in book.records:
            book.add(key, sizes)
    todo = [key for key in wanted if key not in book.records]
    jobs = [_Job(programs, labels, settings, *part) for part in _batches(programs, settings, todo)]
    results = map(_measure, jobs)
    for records in shown(results, [len(job.seeds) for job in jobs]) if progress else results:
        for key, sizes in records:
            book.add(key, sizes)
    return Sweep({key: book.records[key] for key in wanted})


#: Fewer replicates at once than this are run one by one.
_WORTH_IT = 4


@dataclass(frozen=True)
class _Job:
    """All programs at one width and some seeds; plain data, so that it can go to another process."""

    programs: Programs
    labels: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Any]
    n: int
    seeds: tuple[int, ...]
    together: bool


def _batches(programs: Programs, settings: Mapping[str, Any], todo: Sequence[tuple[int, int]]):
    """Return the jobs (n, seeds, together): several seeds at once where a run would be dense and small.

    Whether a width is run together depends on the programs only, so that a resumed sweep rounds as an unbroken one.
    """
    by_width: dict[int, list[int]] = {}
    for n, seed in todo:
        by_width.setdefault(n, []).append(seed)
    for n, seeds in by_width.items():
        size = 1
        if settings["backend"] == "numpy" and all(is_dense(p, n, settings["method"]) for p, _ in programs.values()):
            size = min(batch_size(p, n) for p, _ in programs.values())
        together = size >= _WORTH_IT
        step = size if together else 1
        yield from ((n, tuple(seeds[i : i + step]), together) for i in range(0, len(seeds), step))


def _measure(job: _Job) -> list:
    """Return ((n, seed), sizes) of every seed of a job."""
    kind, data_seed = job.settings["dtype"], job.settings["data_seed"]
    draws = [Draws(job.n, s, kind, data_seed=data_seed, cache=len(job.programs) > 1) for s in job.seeds]
    out: list[dict] = [{} for _ in draws]
    for label, (program, values) in job.programs.items():
        if not job.together:
            r = run(program, job.n, job.seeds[0], values=values, draws=draws[0], **job.settings)
            found = [r.sizes]
        else:
            sizes = run_replicates(program, job.n, job.seeds, values=values, draws=draws)
            found = [{name: float(x[i]) for name, x in sizes.items()} for i in range(len(draws))]
        for mine, sizes in zip(out, found, strict=True):
            mine[label] = {
                what: _rms([sizes[x] for x in names if x in program]) for what, names in job.labels.items()
                if any(x in program for x in names)
            }
    return [((job.n, seed), sizes) for seed, sizes in zip(job.seeds, out, strict=True)]


def _rms(sizes: Sequence[float]) -> float:
    top = max(sizes)
    if not 0.0 < top < math.inf:
        return top if top == top else math.nan
    return top * math.sqrt(sum((x / top) ** 2 for x in sizes) / len(sizes))


def _labels(programs: Programs, measure) -> dict[str, tuple[str, ...]]:
    if measure is None:
        return {x: (x,) for p, _ in programs.values() for x in p.names if not isinstance(p.type_of(x), MatrixType)}
    pairs = measure.items() if isinstance(measure, Mapping) else ((x, (x,)) for x in measure)
    labels = {what: (names,) if isinstance(names, str) else tuple(names) for what, names in pairs}
    for what, names in labels.items():
        for name in names:
            found = [p for p, _ in programs.values() if name in p]
            if not found or any(isinstance(p.type_of(name), MatrixType) for p in found):
                raise RunError(f"measure {what}", name, "no vector or scalar of this name",
                               "name variables of the programs")
        if not names:
            raise RunError(f"measure {what}", names, "there is nothing to measure", "name variables of the programs")
    return labels


def fingerprint(programs: Programs, labels: Mapping[str, tuple[str, ...]], settings: Mapping[str, Any]) -> str:
    """Return a hash of all that the results of a sweep depend on, widths and seeds apart."""
    parts: list = [_VERSION, sorted(labels.items()), sorted(settings.items())]
    for label, (program, values) in sorted(programs.items()):
        exponents = sorted((k, str(v)) for k, v in values.items())
        parts.append((label, str(program), [repr(line) for line in program.lines], exponents))
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(parts))  # functions print their address, which no rerun shares
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class _Book:
    """The finished runs, in memory and, line by line, in a file."""

    def __init__(self, path, identity: str):
        self.path = None if path is None else Path(path)
        self.records: dict[tuple[int, int], dict] = {}
        if self.path is None:
            return
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]  # what follows the last newline was torn off by a kill
        lines = whole.splitlines()
        if lines:
            self._read(lines, identity)
            if len(whole) < len(content):
                os.truncate(self.path, len(whole))
        else:
            self.path.write_bytes(b"")
            self._append({"sweep": identity, "version": _VERSION})

    def _read(self, lines: list[bytes], identity: str) -> None:
        try:
            head = json.loads(lines[0])
            found = head["sweep"]
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{self.path}: 1", lines[0][:40].decode(errors="replace"), "this is not the file of a sweep",
                           "use another path") from None
        if found != identity:
            raise RunError(f"{self.path}: 1", found, "this file is of a sweep with other programs, values or settings",
                           "use another path, or delete the file")
        for i, line in enumerate(lines[1:], 2):
            try:
                record = json.loads(line)
                self.records[record["n"], record["seed"]] = record["sizes"]
            except (ValueError, KeyError, TypeError):
                raise RunError(f"{self.path}: {i}", line[:40].decode(errors="replace"), "this line is damaged",
                               "delete the line") from None

    def add(self, key: tuple[int, int], sizes) -> None:
        """Keep a finished run; when this returns, it is on the disk."""
        self.records[key] = sizes
        if self.path:
            self._append({"n": key[0], "seed": key[1], "sizes": sizes})

    def _append(self, record) -> None:
        assert self.path is not None
        with open(self.path, "ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def shown(results: Iterable, steps: Sequence[int]) -> Iterable:
    from rich.progress import Progress

    with Progress() as bar:
        task = bar.add_task("runs", total=sum(steps))
        for step, records in zip(steps, results, strict=False):
            bar.advance(task, step)
            yield records
