"""The runner against the physical cost of what it does: python tests/bench/bench_finite.py [--json] [--quick].

Dense: the normals of the weights at the fastest rate at which this machine draws them (a forward pass alone need not
keep them), and the products at its peak matrix-multiplication rate, both measured in the same run, in turn with the
runner; beside it the ratio to what our own draws, which are faster in single precision, and the products take.
Matrix-free: seconds and peak memory of three SGD steps at width 2^20, in a process of its own. Not a timed test:
machines are shared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from finite.standins import mlp, mup  # noqa: E402 - the path is set above

from tensorprog.finite.draws import polar  # noqa: E402
from tensorprog.finite.numpy_backend import run  # noqa: E402
from tensorprog.finite.schedule import schedule  # noqa: E402
from tensorprog.program.instructions import Input, MatMul, MatrixType  # noqa: E402

LIMIT = 1.3


def seconds(job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def draw_rate(dtype: str, kept: bool, count: int = 1 << 25, own: bool = False) -> float:
    """Return normals a second, all cores, the fastest of numpy's generators (or of ours) and of block sizes.

    Kept, they go to fresh memory, as weights do that are used again; otherwise every block overwrites the last one.
    """
    cores, best = os.cpu_count() or 1, 0.0
    for kind in (np.random.SFC64, np.random.PCG64):
        for block in (1 << 18,) if own else (count // cores, 1 << 18) if kept else (1 << 17, 1 << 18):
            rngs = [np.random.Generator(kind(i)) for i in range(count // block)]
            out = np.empty(count if kept else cores * block, dtype)
            share = len(rngs) // cores

            def fill(core, rngs=rngs, out=out, block=block, share=share):
                for i in range(core * share, (core + 1) * share):
                    start = (i if kept else core) * block
                    part = out[start : start + block]
                    polar(rngs[i], part) if own else rngs[i].standard_normal(out=part, dtype=out.dtype)

            with ThreadPoolExecutor(cores) as pool:
                start = time.perf_counter()
                list(pool.map(fill, range(cores)))
                best = max(best, cores * share * block / (time.perf_counter() - start))
    return best


def flop_rate(dtype: str, n: int = 2048) -> float:
    """Return floating-point operations a second of a square matrix product."""
    a = np.ones((n, n), dtype)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)
    return 2 * n**3 / min(seconds(lambda: np.matmul(a, a, out=out)) for _ in range(3))


def work(program, n: int) -> tuple[int, int]:
    """Return how many normals a dense run draws, and its floating-point operations in products with matrices."""
    sizes = program.sizes(n)

    def entries(name):
        t = program.type_of(name)
        return sizes[t.rows.name] * sizes[t.cols.name]

    inputs = [x.out for x in program.lines if isinstance(x, Input) and isinstance(x.type, MatrixType)]
    draws = sum(entries(x) for x in inputs)
    flops = sum(2 * entries(x.matrix) for step in schedule(program).steps for x in step
                if isinstance(x, MatMul) and x.matrix in inputs)
    return draws, flops


def dense(n: int, repeats: int, dtype: str = "float32") -> list[dict]:
    out = []
    for what, steps in (("forward", 0), ("one SGD step", 1)):
        program, values = mlp(depth=3, batch=4, steps=steps), mup(3)
        draws, flops = work(program, n)
        run(program, 64, 0, values=values, dtype=dtype)
        ratios, runs, bounds, strict = [], [], [], []
        for seed in range(repeats):
            products = flops / flop_rate(dtype)
            bound = draws / draw_rate(dtype, kept=steps > 0) + products
            ours = draws / draw_rate(dtype, kept=steps > 0, own=True) + products
            took = seconds(lambda p=program, v=values, s=seed: run(p, n, s, values=v, dtype=dtype, method="dense"))
            ratios.append(took / bound)
            strict.append(took / ours)
            runs.append(took)
            bounds.append(bound)
        out.append({"bench": f"dense, {what}", "width": n, "seconds": statistics.median(runs), "best": min(runs),
                    "physical": statistics.median(bounds), "ratio": statistics.median(ratios),
                    "ratio_best": min(runs) / min(bounds), "limit": LIMIT,
                    "ratio_to_own_draws": statistics.median(strict)})
    return out


def one_thin(n: int, dtype: str) -> None:
    """Run three SGD steps matrix-free and print what it took; in a process of its own for its peak memory."""
    program, values = mlp(depth=3, batch=4, steps=3), mup(3)
    took = seconds(lambda: run(program, n, 0, values=values, dtype=dtype, method="matrix-free"))
    print(json.dumps({"seconds": took, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


def thin(n: int, dtype: str) -> dict:
    command = [sys.executable, __file__, "--one", str(n), dtype]
    took = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"bench": f"matrix-free, three SGD steps, {dtype}", "width": n, **took, "limit_seconds": 60, "limit_gib": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="smaller widths, fewer repeats")
    parser.add_argument("--one", nargs=2, metavar=("WIDTH", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_thin(int(args.one[0]), args.one[1])
        return
    rows = dense(1024 if args.quick else 4096, 3 if args.quick else 7)
    rows += [thin(1 << (14 if args.quick else 20), dtype) for dtype in ("float64", "float32")]
    for row in rows:
        if args.json:
            print(json.dumps(row))
        else:
            numbers = "  ".join(f"{k} {v:.3g}" for k, v in row.items() if k not in ("bench", "width"))
            print(f"{row['bench']:<42} n = {row['width']:<8} {numbers}")


if __name__ == "__main__":
    main()
