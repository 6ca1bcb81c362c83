"""Time to derive against depth: python tests/bench/bench_derive.py [--json] [--depths 1 2 4 ...] [--optimizer adam].

Transformers of growing depth (14 parameters a block with one head), CPU seconds of the best of a few runs,
and the exponent of the growth between successive depths. Also what it costs to import the package and to load derive,
each in a process of its own. Not a timed test: machines are shared.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import tensorprog as tp  # noqa: E402 - the path is set above

DEPTHS = (1, 2, 4, 8, 16, 32, 64, 96)
IMPORTS = {
    "python": "pass",
    "import tensorprog": "import tensorprog",
    "tensorprog.derive": "import tensorprog as tp; tp.derive",
    "tensorprog.nets.mlp": "import tensorprog as tp; tp.nets.mlp",
}


def cpu_seconds(job, repeat: int = 7) -> float:
    """Return the least CPU time of a few runs."""
    best = math.inf
    for _ in range(repeat):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def import_seconds(code: str, repeat: int = 5) -> float:
    """Return the least wall time of a fresh interpreter that runs a line of code."""
    best = math.inf
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        best = min(best, time.perf_counter() - start)
    return best


def measure(depths, optimizer: str, heads: int) -> list[dict]:
    """Return a row a depth: matrices, lines of the unrolled program, seconds, growth since the row before."""
    tp.derive(tp.nets.transformer(1), optimizer)  # what is loaded once is not counted
    rows: list[dict] = []
    for depth in depths:
        net = tp.nets.transformer(depth, heads=heads)
        derived = None

        def job(net=net):
            nonlocal derived
            derived = tp.derive(net, optimizer)

        seconds = cpu_seconds(job, 3 if depth <= 16 else 1)
        growth = None
        if rows:
            growth = math.log(seconds / rows[-1]["seconds"]) / math.log(depth / rows[-1]["depth"])
        lines = len(derived.trajectory.program.lines)
        rows.append({"depth": depth, "weights": len(net.params), "lines": lines, "seconds": seconds, "growth": growth,
                     "microseconds_a_line": 1e6 * seconds / lines})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--heads", type=int, default=2)
    options = parser.parse_args()
    imports = {name: import_seconds(code) for name, code in IMPORTS.items()}
    rows = measure(options.depths, options.optimizer, options.heads)
    if options.json:
        print(json.dumps({"optimizer": options.optimizer, "heads": options.heads, "imports": imports, "derive": rows}))
        return
    for name, seconds in imports.items():
        print(f"{name:22} {1e3 * seconds:8.0f} ms")
    print(f"\n{'depth':>5} {'weights':>8} {'lines':>8} {'CPU s':>8} {'us/line':>8} {'growth':>7}")
    for r in rows:
        growth = "" if r["growth"] is None else f"{r['growth']:.2f}"
        print(f"{r['depth']:5} {r['weights']:8} {r['lines']:8} {r['seconds']:8.2f} {r['microseconds_a_line']:8.0f} "
              f"{growth:>7}")


if __name__ == "__main__":
    main()
