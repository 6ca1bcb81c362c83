"""Kernels of fully connected networks, by themselves and beside a peer: python tests/bench/bench_kernels.py [--quick].

Without a peer: seconds of ours. ``--peer`` names the interpreter of another environment, one that has neural-tangents
and jax; it is asked for the same kernels of the same inputs in the same run, in turns with ours (medians of each; its
compilation is not counted), and its values are compared. Then the cold start: from the start of a process to the first
kernel; and the peak memory of a process that makes one large kernel. Not a timed test: machines are shared.
``--markdown FILE`` writes the tables of the documentation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

DIMENSION = 32
#: The standard deviation of the weights; relu keeps its variances then.
SPREAD = {"relu": math.sqrt(2), "erf": 1.5, "gelu": 1.5}
BIAS = 0.1
#: Nonlinearity, biases, depth, and how many times faster than the peer we want to be.
CASES = [("relu", False, 3, 2), ("relu", False, 30, 10), ("relu", False, 100, 30), ("relu", True, 3, 2),
         ("relu", True, 30, 3), ("erf", True, 3, 2), ("erf", True, 30, 3), ("gelu", True, 3, 2), ("gelu", True, 30, 3)]
#: Cold starts by depth, times sooner; and the part of the peer's memory.
COLD, MEMORY = {3: 5, 100: 20}, 3


def inputs(n: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((n, DIMENSION))


def ours(name: str, biases: bool, depth: int, kind: str):
    """Return our kernel as a function of the inputs."""
    import tensorprog as tp
    from tensorprog.kernels.kernel import nngp, ntk

    s = SPREAD[name]
    net = tp.nets.mlp(depth=depth, activation=name, d_in=DIMENSION, bias=biases)
    scale = {"input": s / math.sqrt(DIMENSION), "hidden": s} | ({"bias": BIAS} if biases else {})
    return (ntk if kind == "ntk" else nngp)(net, multipliers=scale, variances={"bias": 1} if biases else {})


def theirs(name: str, biases: bool, depth: int, kind: str):
    """Return the peer's kernel, compiled; runs in its own environment."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from neural_tangents import stax

    act = {"relu": stax.Relu, "erf": stax.Erf, "gelu": stax.Gelu}[name]
    layers = [x for _ in range(depth) for x in (stax.Dense(512, SPREAD[name], BIAS if biases else None), act())]
    kernel = stax.serial(*layers, stax.Dense(1, 1.0, None))[2]
    fn = jax.jit(lambda x: kernel(x, None, kind))
    return lambda x: np.asarray(fn(x).block_until_ready())


def timed(job, repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    return seconds


def serve() -> None:
    """Answer lines of JSON: make a kernel, or time it; what ``Peer`` talks to."""
    kernel, x = np.asarray, np.zeros(0)
    for line in sys.stdin:
        ask = json.loads(line)
        if "case" in ask:
            kernel, x = theirs(*ask["case"]), inputs(ask["n"])
            np.save(ask["file"], kernel(x))
            answer = 0
        else:
            answer = timed(partial(kernel, x), ask["repeats"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Peer:
    """A process in the peer's environment."""

    def __init__(self, python: str):
        self.process = subprocess.Popen([python, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    def ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the peer's environment does not run neural-tangents")
        return json.loads(line)


def warm(case, n: int, kind: str, peer: Peer | None, rounds: int) -> dict:
    """Time one kernel, in turns with the peer."""
    name, biases, depth, asked = case
    kernel, x = ours(name, biases, depth, kind), inputs(n)
    value, own, other = kernel(x), [], []
    network = f"{name}{' with biases' if biases else ''}, depth {depth}"
    row = {"case": f"{kind} {network}, N = {n}", "network": network, "n": n, "kind": kind, "asked": asked}
    if peer:
        file = str(Path(tempfile.gettempdir()) / f"bench_kernels_{peer.process.pid}.npy")
        peer.ask(case=[name, biases, depth, kind], n=n, file=file)
        reference = np.load(file)
        Path(file).unlink()
        # The peer's tangent kernel of relu is off on its diagonal: an arccosine next to 1.
        apart = ~np.eye(n, dtype=bool)
        row["difference"] = float(np.max(np.abs(value - reference)[apart]) / np.max(np.abs(value)))
        row["diagonal"] = float(np.max(np.abs((value - reference).diagonal())) / np.max(np.abs(value)))
    few = 1 if n * depth > 30_000 else 3
    for _ in range(rounds):
        own += timed(lambda: kernel(x), 3)
        if peer:
            other += peer.ask(repeats=few)
    row |= {"seconds": statistics.median(own), "fastest": min(own)}
    if peer:
        row |= {"peer": statistics.median(other), "peer fastest": min(other)}
        row |= {"ratio": row["peer"] / row["seconds"], "ratio of fastest": row["peer fastest"] / row["fastest"]}
    return row


def process(python: str, who: str, depth: int, n: int) -> tuple[float, float]:
    """Return the seconds and the peak memory (MiB) of a process that makes one kernel."""
    start = time.perf_counter()
    done = subprocess.run([python, __file__, "--first", who, "--depths", str(depth), "--sizes", str(n)], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return time.perf_counter() - start, float(done.stdout)


def cold(python: str | None, depth: int, n: int, repeats: int) -> dict:
    """Time processes, from their start to a kernel, in turns."""
    runs = [[process(p, who, depth, n) for who, p in (("ours", sys.executable), ("theirs", python)) if p]
            for _ in range(repeats)]
    row = {"case": f"process to an NTK of relu, depth {depth}, N = {n}",
           "seconds": statistics.median(r[0][0] for r in runs), "MiB": statistics.median(r[0][1] for r in runs)}
    if python:
        row |= {"peer": statistics.median(r[1][0] for r in runs), "peer MiB": statistics.median(r[1][1] for r in runs)}
        row |= {"ratio": row["peer"] / row["seconds"], "memory": row["peer MiB"] / row["MiB"]}
    return row


def first(who: str, depth: int, n: int) -> None:
    (ours if who == "ours" else theirs)("relu", False, depth, "ntk")(inputs(n))
    # Of this program alone: the peak that getrusage tells counts the process it was forked from.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)


def show(row: dict) -> str:
    text = f"{row['case']:48s} {row['seconds']:9.4f} s"
    if "peer" in row:
        wanted = f" (asked: {row['asked']})" if row.get("asked") else ""
        text += f"   peer {row['peer']:8.3f} s   {row['ratio']:6.1f} times{wanted}"
    if "difference" in row:
        text += f"   differ {row['difference']:.0e}, diagonal {row['diagonal']:.0e}"
    return text + (f"   {row['MiB']:.0f} MiB" if "MiB" in row else "") + (
        f" of {row['peer MiB']:.0f}" if "peer MiB" in row else "")


def markdown(rows: list[dict], command: str) -> str:
    """Return tables of all measurements, as the documentation shows them."""
    import platform

    sizes = sorted({row["n"] for row in rows if "kind" in row})
    heads = [f"{kind.upper()}, N = {n:,}" for n in sizes for kind in ("nngp", "ntk")]
    lines = ["| network | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    cells = {(row["network"], row["n"], row["kind"]): row for row in rows if "kind" in row}
    for network in dict.fromkeys(row["network"] for row in rows if "kind" in row):
        found = [cells.get((network, n, kind)) for n in sizes for kind in ("nngp", "ntk")]
        lines.append(f"| {network} | " + " | ".join("" if row is None else compared(row) for row in found) + " |")
    first = [f"| {row['case']} | {compared(row)} | {row['MiB']:.0f} MiB"
             + (f" of {row['peer MiB']:.0f}" if "peer MiB" in row else "") + " |" for row in rows if "MiB" in row]
    if first:
        lines += ["", "| from the start of a process | time | peak memory |", "|---|---|---|", *first]
    about = (f"Our seconds of those of neural-tangents 0.6.5, medians in turns with it: double precision, {DIMENSION} "
             f"dimensions, {cores()} cores, Python {platform.python_version()}, NumPy {np.__version__}. The command "
             "(PYTHON: the interpreter of an environment made from `tests/peer/requirements.txt`):")
    head = "<!-- made by tests/bench/bench_kernels.py, not by hand -->"
    return "\n".join([head, about, "", "```bash", command, "```", "", *lines, ""])


def compared(row: dict) -> str:
    ours = f"{row['seconds']:.2g} s"
    return f"{ours} of {row['peer']:.2g} s: **{row['ratio']:.1f}×**" if "peer" in row else ours


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="the python of an environment with neural-tangents")
    parser.add_argument("--sizes", default="500,2000")
    parser.add_argument("--depths", default="3,30,100")
    parser.add_argument("--kinds", default="nngp,ntk")
    parser.add_argument("--nonlinearities", default="relu,erf,gelu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small and shallow only")
    parser.add_argument("--json", action="store_true", help="one line of JSON a measurement")
    parser.add_argument("--markdown", help="a file to write tables to")
    parser.add_argument("--warm-only", action="store_true", help="no cold starts, no memory")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", help=argparse.SUPPRESS)
    a = parser.parse_args()
    sizes, depths = ([int(x) for x in text.split(",")] for text in (a.sizes, a.depths))
    if a.serve:
        return serve()
    if a.first:
        return first(a.first, depths[0], sizes[0])
    if a.quick:
        sizes, depths = [200], [3]
    peer = Peer(a.peer) if a.peer else None

    done: list[dict] = []

    def tell(row: dict) -> None:
        done.append(row)
        print(json.dumps(row) if a.json else show(row), flush=True)

    for case in CASES:
        if case[2] in depths and case[0] in a.nonlinearities.split(","):
            for n in sizes:
                for kind in a.kinds.split(","):
                    tell(warm(case, n, kind, peer, a.rounds))
    if not a.warm_only:
        for depth, asked in COLD.items():
            if depth in depths:
                tell(cold(a.peer, depth, 10, a.rounds) | {"asked": asked})
        if 30 in depths:
            tell(cold(a.peer, 30, max(sizes), 1))
    if a.markdown:
        given = f" --sizes {a.sizes} --depths {a.depths}" if (a.sizes, a.depths) != ("500,2000", "3,30,100") else ""
        given += f" --rounds {a.rounds}" if a.rounds != 3 else ""
        command = f"python tests/bench/bench_kernels.py --peer PYTHON{given} --markdown {a.markdown}"
        Path(a.markdown).write_text(markdown(done, command))
    return None


if __name__ == "__main__":
    main()
