"""Kernels of many inputs: memory that does not grow with their pairs, single precision, progress."""

import tracemalloc

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.kernels import nngp, ntk

MIB = 2**20


def kernel(make, activation):
    return make(tp.nets.mlp(3, activation=activation, d_in=16, bias=True), variances={"bias": 0.1})


def assert_made(k, X, out, *, budget):
    """Fill ``out`` in single precision within ``budget`` MiB, and compare a part with double precision."""
    seen: list[tuple[int, int]] = []
    k(X[:2])  # what is compiled and looked up once
    tracemalloc.start()
    k(X, out=out, progress=lambda done, total: seen.append((done, total)))
    peak = tracemalloc.get_traced_memory()[1] / MIB
    tracemalloc.stop()
    assert peak < budget, f"{peak:.0f} MiB"
    counts, totals = zip(*seen, strict=True)
    assert len(seen) > 10 and len(set(totals)) == 1 and list(counts) == sorted(counts) and counts[-1] == totals[0]
    some = np.random.default_rng(1).choice(len(X), 40, replace=False)
    part, exact = out[np.ix_(some, some)], k(X[some].astype(float))
    assert part.dtype == np.float32 and np.array_equal(part, part.T)
    assert np.abs(part - exact).max() < 2e-5 * exact.max()


@pytest.mark.parametrize("make", [nngp, ntk])
def test_single_precision_in_bounded_memory(make, tmp_path):
    X = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    out = np.lib.format.open_memmap(tmp_path / "K.npy", mode="w+", dtype=np.float32, shape=(3000, 3000))
    k = kernel(make, "erf")
    assert_made(k, X, out, budget=10)  # the kernel itself has 34
    with pytest.raises(AssertionError, match="MiB"):
        assert_made(k, X, out, budget=1)


@pytest.mark.slow
def test_twenty_thousand_inputs(tmp_path):
    """The kernel has 1.5 GiB in single precision, on disk; beside it some tiles and what each input has."""
    X = np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32)
    out = np.lib.format.open_memmap(tmp_path / "K.npy", mode="w+", dtype=np.float32, shape=(20_000, 20_000))
    assert_made(kernel(ntk, "erf"), X, out, budget=20)
    (tmp_path / "K.npy").unlink()
