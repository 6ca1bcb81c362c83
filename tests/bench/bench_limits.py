"""What limits cost, by which road: python tests/bench/bench_limits.py [--draws] [--json] [--quick].

Of programs whose limits are known: seconds for the closed form, for the integrals, and for a population to a stated
error; and the width at which one run of the program is as accurate, with what it takes. Then the price of a line, and
three hidden layers forward and backward to three digits. ``--draws`` measures instead how far averages over a
population fluctuate, by where its normals come from. Not a timed test: machines are shared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from finite.known_limits import deep, known  # noqa: E402 - the path is set above

import tensorprog as tp  # noqa: E402
from tensorprog.errors import NotCoveredError  # noqa: E402
from tensorprog.finite.limit import _data, limit, needed  # noqa: E402
from tensorprog.finite.network import predict  # noqa: E402
from tensorprog.finite.numpy_backend import run  # noqa: E402
from tensorprog.finite.population import sample  # noqa: E402
from tensorprog.finite.sobol import SobolDraws, columns, normal_net  # noqa: E402
from tensorprog.interp.normal import NormalForm  # noqa: E402

SECONDS = 10.0  # for three hidden layers forward and backward to three digits


def timed(job: Callable):
    start = time.perf_counter()
    found = job()
    return found, time.perf_counter() - start


# ------------------------------------------------------------------------------------------- where normals come from


class NetDraws(SobolDraws):
    """Columns of another kind, in place of the net."""

    def __init__(self, n: int, seed: int, counts, kind: str):
        super().__init__(n, seed, counts)
        rng = np.random.default_rng([seed, n, 3])
        for length, count in counts.items():
            self._nets[length] = self.net(kind, length, count, rng)

    @staticmethod
    def net(kind: str, length: int, count: int, rng: np.random.Generator) -> np.ndarray:
        from scipy.linalg import solve_triangular
        from scipy.special import ndtri

        if kind.startswith("Sobol"):
            return normal_net(length, count, rng, orthonormal=kind.endswith("orthonormal"))
        if kind == "Latin hypercube":
            return np.stack([ndtri((rng.permutation(length) + rng.random(length)) / length) for _ in range(count)])
        if kind == "antithetic":
            half = rng.standard_normal((count, length // 2))
            return np.concatenate([half, -half], axis=1)
        g = rng.standard_normal((count, length))
        if kind.endswith("orthonormal"):
            g -= g.mean(axis=1, keepdims=True)
            g = solve_triangular(np.linalg.cholesky(g @ g.T / length), g, lower=True)
        return g


KINDS = ("plain", "plain, orthonormal", "antithetic", "Latin hypercube", "Sobol", "Sobol, orthonormal")


def draws(quick: bool) -> list[dict]:
    """Return root mean square errors of scalars by kind of draws and population."""
    cases = [("relu", "yy"), ("sin", "yy"), ("sign", "xy"), ("chain", "zz"), ("fourth", "q"), ("three layers", "q"),
             ("three layers", "g"), ("ten layers", "g")]
    out, seeds = [], 8 if quick else 24
    for name, scalar in cases:
        program, limits = known(name)
        for n in [1 << k for k in ((10, 12) if quick else (10, 12, 14, 16))]:
            counts = columns(program, n)
            row: dict = {"program": name, "scalar": scalar, "uses": sum(counts.values()), "N": n}
            for kind in KINDS:
                start = time.perf_counter()
                values = [run(program, n, s, draws=NetDraws(n, s, counts, kind))[scalar] for s in range(seeds)]
                row[f"{kind}, ms"] = 1e3 * (time.perf_counter() - start) / seeds
                row[kind] = float(np.sqrt(np.mean(np.square(np.array(values) - limits[scalar]))))
            out.append(row)
    return out


# ----------------------------------------------------------------------------------------------------- three roads


def roads(quick: bool) -> list[dict]:
    """Return seconds and errors of the roads to a limit.

    width: at which the root mean square error of one run is the standard error of the sampled limit; run, dense:
    seconds of that run without forming the matrices, and what one matrix would take if formed.
    """
    cases = [("relu", "yy"), ("tanh", "yy"), ("chain", "zz"), ("semicircle 5", "q"), ("own activations", "k4"),
             ("three layers", "g"), ("relu step", "f1"), ("linear steps", "f2")]
    out = []
    for name, scalar in cases[:3] if quick else cases:
        program, limits = known(name)
        sample(program, scalar, size=256)  # what is imported or compiled at first use is not timed
        truth = limits[scalar]
        row: dict = {"program": name, "scalar": scalar, "limit": truth}
        try:
            found, row["exact, s"] = timed(lambda p=program, x=scalar: limit(p, x, method="exact"))
            row["method"], row["exact, error"] = found.method, abs(found.value - truth)
        except NotCoveredError as refusal:
            row["method"] = type(refusal).__name__
        population = needed(program, [scalar])
        estimate, row["sampled, s"] = timed(lambda p=population, x=scalar: sample(p, x, tol=1e-3)[x])
        row |= {"N": estimate.size, "sampled, stated": estimate.error, "sampled, error": abs(estimate.value - truth)}
        row |= simulation(population, scalar, truth, max(estimate.error / 2, 1e-4))
        out.append(row)
    return out


def simulation(program, scalar: str, truth: float, error: float, n: int = 1 << 14) -> dict:
    """Return the width at which one run has this root mean square error, its seconds, and a dense matrix's memory."""
    values, seconds = timed(lambda: [run(program, n, s)[scalar] - truth for s in range(16)])
    width = n * float(np.mean(np.square(values))) / error**2
    return {"width": f"2^{math.log2(width):.0f}", "run, s": seconds / 16 * width / n,
            "dense, GB": 8e-9 * width**2}


# -------------------------------------------------------------------------------------------------------- the cost


def lines(quick: bool) -> list[dict]:
    """Return milliseconds a line, of chains of growing depth, at populations of growing size."""
    out = []
    for depth in (2, 8, 32) if quick else (2, 8, 32, 128):
        program = tp.parse(deep(depth)[0])
        for n in (1 << 10, 1 << 12, 1 << 14):
            counts = columns(program, n)
            _, seconds = timed(lambda p=program, n=n, counts=counts: [
                run(p, n, s, draws=SobolDraws(n, s, counts)) for s in range(4)])
            out.append({"lines": len(program.lines), "N": n, "ms": 250 * seconds,
                        "µs a line": 250e3 * seconds / len(program.lines)})
    return out


def networks(quick: bool) -> list[dict]:
    """Return seconds to three digits (an error of 5e-4): forward and backward, and in training with µP."""
    out = []
    program = tp.parse(deep(3)[0])
    found, seconds = timed(lambda: sample(program, ["q", "g"], tol=5e-4, budget=60.0))
    out.append({"network": "3 hidden layers, forward and backward", "lines": len(program.lines), "s": seconds,
                "N": found["g"].size, "stated": max(e.error for e in found.values()), "in time": seconds < SECONDS})
    for steps, batch in ((1, 1), (3, 2)) if quick else ((1, 1), (3, 2), (10, 1)):
        told = predict(tp.nets.mlp(3), "mup", optimizer="sgd", steps=steps, batch=batch)
        form, prepared = timed(lambda told=told: NormalForm(
            told.trajectory.program, told.values, data=_data(told.trajectory.program, None)))
        name = next(x for x in reversed(form.program.names) if x.startswith("f"))
        small = needed(form.program, [name])
        found, seconds = timed(lambda p=small, x=name: sample(p, x, tol=5e-4, budget=60.0)[x])
        out.append({"network": f"3 hidden layers, {steps} steps, batch {batch}", "lines": len(small.lines),
                    "s": seconds + prepared, "N": found.size, "stated": found.error,
                    "in time": seconds + prepared < SECONDS})
    return out


def table(rows: list[dict]) -> str:
    """Return rows as text, one column a key."""
    heads = list(dict.fromkeys(key for row in rows for key in row))

    def cell(x) -> str:
        return "" if x is None else f"{x:.2g}" if isinstance(x, float) and not x.is_integer() else str(x)

    cells = [heads, *([cell(row.get(h)) for h in heads] for row in rows)]
    wide = [max(len(r[i]) for r in cells) for i in range(len(heads))]
    return "\n".join("  ".join(x.rjust(w) for x, w in zip(r, wide, strict=True)) for r in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", action="store_true", help="only errors by kind of draws")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    parts = [draws] if options.draws else [roads, lines, networks]
    found = {part.__name__: part(options.quick) for part in parts}
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print("\n\n".join(f"{name}\n{table(rows)}" for name, rows in found.items()))


if __name__ == "__main__":
    main()
