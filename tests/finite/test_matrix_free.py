"""The sampler of products has the law of a dense Gaussian matrix: by distribution at tiny widths, by its algebra."""

import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from tensorprog.exponents.scale import Scale
from tensorprog.finite import numpy_backend
from tensorprog.finite.draws import Draws
from tensorprog.finite.matrix_free import LazyGaussian
from tensorprog.finite.numpy_backend import run
from tensorprog.program.dims import Dim

from .standins import Adam, Linear, Writer, gaussian, mlp, mup

SEEDS = 2000


def tangled(rows_factor=1):
    """W and W^T used in turn, with nonlinearities between, and a vector in the span of earlier ones."""
    w = Writer()
    m = w.program.add_dim(Dim("m", 1, rows_factor))
    w.matrix("W", m, w.n, gaussian(Scale.power("n", -1)))
    x = w.vector("x")
    y = w.fn("tanh", w.mul("W", x))
    z = w.fn("relu", w.mul("W", y, True))
    again = w.mul("W", w.lin((2, x), (1, z)))
    back = w.mul("W", w.fn("sin", again), True)
    w.moment(back, x, out="s1")
    w.moment(w.mul("W", w.fn("abs", back)), y, out="s2")
    w.moment(w.fn("abs", w.mul("W", w.mul("W", y, True))), out="s3")
    w.moment(w.mul("W", w.vector("v")), y, out="s4")
    return w.program


def sample(program, n, method, offset=0, **kwargs):
    runs = [run(program, n, offset + seed, method=method, **kwargs) for seed in range(SEEDS)]
    return {name: np.array([r[name] for r in runs]) for name in ("s1", "s2", "s3", "s4")}


def smallest_pvalue(one, two):
    return min(stats.ks_2samp(one[k], two[k]).pvalue for k in one)


@pytest.mark.parametrize("n, rows_factor", [(4, 1), (8, 1), (4, 2)])
def test_law_of_the_dense_matrix(n, rows_factor):
    program = tangled(rows_factor)
    assert smallest_pvalue(sample(program, n, "dense"), sample(program, n, "matrix-free", SEEDS)) > 1e-3


class Forgetful(LazyGaussian):
    """Draws the products by W and those by W^T as if they were of two matrices."""

    def _draw(self, side, back, known, transposed):
        keys = [(*self._key, 2 + transposed, use) for use in range(known, side.count)]
        return np.stack([self._draws.fresh((side.other,), key) for key in keys])


class Loose(LazyGaussian):
    """Forgets to take the components along earlier uses out of the fresh noise."""

    def _draw(self, side, back, known, transposed):
        fresh = Forgetful._draw(self, side, back, known, transposed)
        return fresh + (side.directions[known:] @ back.images.T) @ back.directions if back.count else fresh


@pytest.mark.parametrize("broken", [Forgetful, Loose])
def test_a_broken_sampler_is_seen(broken, monkeypatch):
    program = tangled()
    dense = sample(program, 4, "dense")
    monkeypatch.setattr(numpy_backend, "LazyGaussian", broken)
    assert smallest_pvalue(dense, sample(program, 4, "matrix-free", SEEDS)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 8])
def test_training_has_the_law_of_dense_training(n):
    program, values, names = mlp(depth=2, batch=2, steps=2), mup(2), ("f[2,0]", "f[2,1]")
    def outputs(method, offset):
        runs = [run(program, n, offset + s, values=values, method=method) for s in range(3000)]
        return {k: np.array([r[k][0] for r in runs]) for k in names}
    assert smallest_pvalue(outputs("dense", 0), outputs("matrix-free", 3000)) > 1e-3


# --------------------------------------------------------------------------------------------------- algebra


def assert_one_matrix(shape, uses, rng, dtype="float64", rtol=1e-9):
    """Play ``uses`` products and check that one matrix explains them: y^T (G x) = (G^T y)^T x for all pairs."""
    m, n = shape
    lazy = LazyGaussian(shape, Draws(n, int(rng.integers(1 << 30)), dtype), "G")
    xs, gxs, ys, gys = [], [], [], []
    for k in range(uses):
        size = int(rng.integers(1, 4))
        pool, images, dim = (xs, gxs, n) if k % 2 == 0 else (ys, gys, m)
        block = rng.standard_normal((size, dim)).astype(dtype)
        if pool and k % 3 == 0:
            block[0] = pool[0] + (1e-7 if dtype == "float64" else 1e-3) * block[0]  # nearly dependent
        if k % 5 == 0:
            block[-1] = 0
        out = lazy.apply(block, k % 2 == 1)
        pool.extend(block)
        images.extend(out)
    left, right = np.array(ys) @ np.array(gxs).T, np.array(gys) @ np.array(xs).T
    np.testing.assert_allclose(left, right, atol=rtol * np.abs(left).max())
    np.testing.assert_allclose(np.linalg.lstsq(np.array(xs), np.array(gxs), rcond=1e-13)[0].shape, (n, m))
    for side in lazy._sides:
        gram = np.asarray(side.directions @ side.directions.T, float)
        np.testing.assert_allclose(gram, np.eye(side.count), atol=100 * np.finfo(dtype).eps)
        assert side.count <= side.size


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 7), (1, 4), (40, 30), (200, 300)])
def test_one_matrix_explains_all_products(shape):
    for seed in range(3):
        assert_one_matrix(shape, 14, np.random.default_rng(seed))


def test_in_float32_too():
    assert_one_matrix((200, 300), 14, np.random.default_rng(0), "float32", rtol=2e-4)


def test_linear_in_its_inputs():
    rng = np.random.default_rng(0)
    lazy = LazyGaussian((50, 60), Draws(60, 0), "G")
    x = rng.standard_normal((3, 60))
    gx = lazy.apply(x, False)
    mix = rng.standard_normal((4, 3))
    np.testing.assert_allclose(lazy.apply(mix @ x, False), mix @ gx, atol=1e-10)
    assert lazy._sides[0].count == 3
    assert lazy.apply(1e-200 * x[:1], False)[0] == pytest.approx(1e-200 * gx[0], rel=1e-10)
    assert not lazy.apply(np.zeros((2, 60)), False).any()


def test_a_full_basis_is_an_ordinary_matrix():
    lazy = LazyGaussian((6, 4), Draws(4, 0), "G")
    by_rows = lazy.apply(np.eye(6), True)
    by_cols = lazy.apply(np.eye(4), False)
    np.testing.assert_allclose(by_rows, by_cols.T, atol=1e-12)
    big = np.concatenate([LazyGaussian((6, 4), Draws(4, s), "G").apply(np.eye(4), False).ravel() for s in range(200)])
    assert stats.kstest(big, "norm").pvalue > 1e-3


def test_what_is_not_finite_stays_so():
    lazy = LazyGaussian((5, 5), Draws(5, 0), "G")
    block = np.ones((3, 5))
    block[1, 2], block[2, 0] = np.inf, np.nan
    out = lazy.apply(block, False)
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1:]).all()


def test_products_in_blocks_or_one_by_one():
    x = np.random.default_rng(0).standard_normal((4, 30))
    block = LazyGaussian((20, 30), Draws(30, 0), "G").apply(x, False)
    single = LazyGaussian((20, 30), Draws(30, 0), "G")
    np.testing.assert_allclose(np.concatenate([single.apply(row[None], False) for row in x]), block, atol=1e-10)


# --------------------------------------------------------------------------------------------------- choosing


def test_auto_takes_the_cheaper_method():
    sgd, adam = mlp(depth=2, batch=1, steps=1), mlp(depth=2, batch=1, steps=1, rule=Adam())
    assert run(sgd, 64, 0, values=mup(2)).method == "dense"
    assert run(sgd, 1024, 0, values=mup(2)).method == "matrix-free"
    # what a drawn product costs depends on how many there were before
    long = mlp(depth=2, batch=4, steps=4)
    assert [run(p, 256, 0, values=mup(2)).method for p in (sgd, long)] == ["matrix-free", "dense"]
    assert run(long, 4096, 0, values=mup(2)).method == "matrix-free"
    assert run(adam, 512, 0, values=mup(2, adam=True)).method == "dense"
    assert run(adam, 512, 0, values=mup(2, adam=True), method="matrix-free").method == "matrix-free"


def test_cost_is_linear_in_the_width():
    program, values = mlp(batch=2, steps=1, rule=Linear()), mup()
    tracemalloc.start()
    start = time.perf_counter()
    run(program, 1 << 16, 0, values=values)
    peak, seconds = tracemalloc.get_traced_memory()[1], time.perf_counter() - start
    tracemalloc.stop()
    assert peak < 300 * 8 * (1 << 16), "the dense matrix would take 32 GB"
    assert seconds < 20
