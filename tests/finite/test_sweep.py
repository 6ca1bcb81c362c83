"""Sweeps: common random numbers, files that survive SIGKILL, processes."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import pytest

import tensorprog
from tensorprog.errors import RunError
from tensorprog.finite.numpy_backend import run
from tensorprog.finite.replicates import run_replicates
from tensorprog.finite.sweep import sweep

from .standins import mlp, mup, standard

PROGRAM = mlp(depth=2, batch=2, steps=1)
PROGRAMS = {"mup": (PROGRAM, mup(2)), "sp": (PROGRAM, standard(2))}
NAMES = ["dh[1,W1,0]", "f[1,0]"]


def test_records_are_the_sizes_of_runs():
    s = sweep(PROGRAMS, [32, 64], 2, measure={"update": ["dh[1,W1,0]", "dh[1,W1,1]"], "f": "f[1,0]"})
    assert len(s) == 4
    r = run(PROGRAM, 64, 1, values=mup(2))
    assert s.records[64, 1]["mup"]["f"] == r.size("f[1,0]")
    both = (r.size("dh[1,W1,0]") ** 2 + r.size("dh[1,W1,1]") ** 2) / 2
    assert s.records[64, 1]["mup"]["update"] == pytest.approx(both**0.5)
    assert s.samples("sp", "f")[32] == [s.records[32, k]["sp"]["f"] for k in range(2)]


def test_seeds_may_differ_by_width():
    s = sweep(PROGRAMS, [16, 32], {16: 3, 32: 1}, measure=NAMES)
    assert sorted(s.records) == [(16, 0), (16, 1), (16, 2), (32, 0)]
    assert set(sweep(PROGRAMS, [16], [4, 7]).records[16, 7]["sp"]) > set(NAMES)


def test_a_sweep_is_resumed_and_extended(tmp_path):
    path = tmp_path / "s.jsonl"
    first = sweep(PROGRAMS, [16, 32], 2, measure=NAMES, path=path)
    calls = []

    def counting(function, jobs):
        for job in jobs:
            calls.extend((job.n, seed) for seed in job.seeds)
            yield function(job)

    second = sweep(PROGRAMS, [16, 32], 3, measure=NAMES, path=path, map=counting)
    assert calls == [(16, 2), (32, 2)]
    assert {k: second.records[k] for k in first.records} == dict(first.records)


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "s.jsonl"
    want = sweep(PROGRAMS, [16], 2, measure=NAMES, path=path).records
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    assert sweep(PROGRAMS, [16], 2, measure=NAMES, path=path).records == want
    assert path.read_bytes() == content
    path.write_bytes(content[:9])  # torn within the header
    assert sweep(PROGRAMS, [16], 2, measure=NAMES, path=path).records == want


def test_a_file_of_another_sweep_is_refused(tmp_path):
    path = tmp_path / "s.jsonl"
    sweep(PROGRAMS, [16], 1, measure=NAMES, path=path)
    other = PROGRAM, mup(2) | {"c[V]": Fraction(1)}
    with pytest.raises(RunError, match="other programs, values or settings"):
        sweep({"mup": other, "sp": PROGRAMS["sp"]}, [16], 1, measure=NAMES, path=path)
    with pytest.raises(RunError, match="other programs, values or settings"):
        sweep(PROGRAMS, [16], 1, measure=NAMES, path=path, dtype="float32")
    path.write_text("hello\n")
    with pytest.raises(RunError, match="not the file of a sweep"):
        sweep(PROGRAMS, [16], 1, measure=NAMES, path=path)
    assert path.read_text() == "hello\n"


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "s.jsonl"
    sweep(PROGRAMS, [16], 2, measure=NAMES, path=path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{", lines[2]]) + "\n")
    with pytest.raises(RunError, match=r"s\.jsonl: 2: this line is damaged"):
        sweep(PROGRAMS, [16], 2, measure=NAMES, path=path)


def test_names_are_checked():
    with pytest.raises(RunError, match="no vector or scalar of this name"):
        sweep(PROGRAMS, [16], 1, measure=["V"])
    with pytest.raises(RunError, match="nothing to measure"):
        sweep(PROGRAMS, [16], 1, measure={"empty": []})


def test_runs_may_be_spread_over_processes(tmp_path):
    want = sweep(PROGRAMS, [16, 32], 2, measure=NAMES).records
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert sweep(PROGRAMS, [16, 32], 2, measure=NAMES, map=pool.map).records == want


def test_progress_is_shown_only_when_asked_for(capsys):
    sweep(PROGRAMS, [16], 1, measure=NAMES)
    assert capsys.readouterr() == ("", "")
    sweep(PROGRAMS, [16], 1, measure=NAMES, progress=True)
    assert "runs" in capsys.readouterr().out


KILLED = """
import sys, time
from fractions import Fraction
from tests_finite_package.standins import mlp, mup
from tensorprog.finite.sweep import sweep

def slow(function, jobs):
    for job in jobs:
        with open(sys.argv[2], "a") as log:
            log.write(f"{job.n} {job.seeds[0]}\\n")
        time.sleep(0.02)
        yield function(job)

sweep({"mup": (mlp(depth=2, batch=2, steps=1), mup(2))}, [16, 32], 20, measure=["f[1,0]"], path=sys.argv[1], map=slow,
      method="matrix-free")  # one replicate a job
"""


def test_a_killed_sweep_loses_nothing_and_repeats_nothing(tmp_path):
    path, log = tmp_path / "s.jsonl", tmp_path / "log"
    package = tmp_path / "tests_finite_package"
    package.symlink_to(Path(__file__).parent, target_is_directory=True)
    root = Path(tensorprog.__file__).parents[1]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(root)]))
    command = [sys.executable, "-c", KILLED, str(path), str(log)]
    finished: list[list[bytes]] = []
    for least in (4, 15):
        child = subprocess.Popen(command, env=env)
        deadline = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < least:
            assert child.poll() is None, "the sweep ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        finished.append(path.read_bytes().split(b"\n")[:-1])
    subprocess.run(command, env=env, check=True, timeout=120)
    lines = path.read_bytes().splitlines()
    for kept in finished:
        assert lines[: len(kept)] == kept, "a finished result was lost"
    keys = [(r["n"], r["seed"]) for r in map(json.loads, lines[1:])]
    assert sorted(keys) == [(n, s) for n in (16, 32) for s in range(20)], "every result once"
    started = log.read_text().splitlines()
    assert len(started) <= 40 + 2, "only the run that was killed is run again"
    values = sweep({"mup": (mlp(depth=2, batch=2, steps=1), mup(2))}, [16], 1, measure=["f[1,0]"],
                   method="matrix-free").records[16, 0]
    assert json.loads(lines[1])["sizes"] == values


def test_replicates_at_once_are_the_runs_one_by_one():
    for program, values in PROGRAMS.values():
        together = run_replicates(program, 16, [3, 5, 8], values=values)
        for i, seed in enumerate((3, 5, 8)):
            alone = run(program, 16, seed, values=values, method="dense").sizes
            assert set(alone) == set(together)
            for name, size in alone.items():
                assert together[name][i] == pytest.approx(size, rel=1e-9, abs=1e-14), name
