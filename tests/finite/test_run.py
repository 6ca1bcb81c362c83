"""The runner: laws, streams, scheduling, liveness, updates; against programs computed by hand."""

import math
import subprocess
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from tensorprog.errors import MissingExtraError, NotCoveredError, ProgramError, RunError
from tensorprog.exponents.scale import Scale
from tensorprog.finite import dense
from tensorprog.finite import draws as draws_module
from tensorprog.finite.arrays import Arrays
from tensorprog.finite.dense import DrawnGaussian
from tensorprog.finite.draws import Draws, fill_normal
from tensorprog.finite.execute import execute, semidefinite_cholesky
from tensorprog.finite.numpy_backend import run
from tensorprog.finite.schedule import schedule
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import Constant, Data, Input, Joint, MatMul, ScalarType
from tensorprog.program.program import Program

from .standins import Adam, Linear, Sign, Writer, gaussian, mlp, mup


def test_the_table_is_total():
    assert execute.missing() == []


# ------------------------------------------------------------------------------------------------------ laws


def test_laws_of_inputs():
    d = Dim.fixed("d", 3)
    w = Writer(d)
    w.vector("x", law=gaussian(Scale.power("n", -1), 2))
    w.vector("one", law=Constant(Scale.of(Fraction(1, 2))))
    w.vector("zero_variance", law=gaussian(0, 3))
    w.vector("values", d, Data((Fraction(1), Fraction(2), Fraction(1, 3))))
    w.vector("hot", d, Data(onehot=1))
    w.vector("generic", d, Data())
    w.program.add(Input("t", ScalarType(), Constant(Scale.of(Fraction(1, 3)))))
    r = run(w.program, 4096, 0, keep="all")
    assert abs(r["x"].mean() - 2) < 0.002
    assert abs(r["x"].std() * 64 - 1) < 0.05
    assert (r["one"] == 0.5).all()
    assert (r["zero_variance"] == 3).all()
    assert r["values"].tolist() == [1, 2, 1 / 3]
    assert r["hot"].tolist() == [0, 1, 0]
    assert r["t"] == 1 / 3
    other = run(w.program, 64, 5, keep="all")
    assert (other["generic"] == r["generic"]).all()
    assert not (run(w.program, 64, 5, keep="all", data_seed=1)["generic"] == r["generic"]).any()


def test_joint_vectors_have_their_covariance_even_a_degenerate_one():
    group = ("u", "v", "w")
    cov = ((4, 2, 2), (2, 2, 0), (2, 0, 2))  # w = u - v
    means = tuple(map(Scale.of, (0, 1, -1)))
    w = Writer()
    for i, name in enumerate(group):
        w.vector(name, law=Joint(group, i, means, tuple(tuple(map(Scale.of, row)) for row in cov)))
    r = run(w.program, 50_000, 0, keep="all")
    u, v, x = (r[k] for k in group)
    np.testing.assert_allclose(u - (v - 1), x + 1, atol=1e-12)
    np.testing.assert_allclose(np.cov([u, v, x]), cov, atol=0.1)
    np.testing.assert_allclose([u.mean(), v.mean(), x.mean()], [0, 1, -1], atol=0.05)


def test_what_is_no_covariance_is_refused():
    assert semidefinite_cholesky(np.array([[1.0, 2.0], [2.0, 1.0]])) is None
    w = Writer()
    bad = tuple(tuple(map(Scale.of, row)) for row in ((1, 2), (2, 1)))
    w.vector("u", law=Joint(("u", "v"), 0, (Scale.of(0),) * 2, bad))
    with pytest.raises(RunError, match="not a covariance matrix"):
        run(w.program, 8, 0)
    w = Writer()
    w.vector("u", law=gaussian(-1))
    with pytest.raises(RunError, match="variance cannot be negative"):
        run(w.program, 8, 0)


def test_a_matrix_with_a_mean_and_a_constant_one():
    for method in ("dense", "matrix-free"):
        w = Writer()
        w.matrix("W", law=gaussian(Scale.power("n", -2), Scale.power("n", -1)))
        w.matrix("J", law=Constant(Scale.power("n", -1)))
        x = w.vector("x", law=gaussian(1, 1))
        names = [w.mul(m, x, t) for m in ("W", "J") for t in (False, True)]
        r = run(w.program, 2000, 1, keep="all", method=method)
        for name in names:
            assert abs(r[name].mean() - 1) < 0.1
            assert r[name].std() < (0.1 if name in names[:2] else 1e-12)


# --------------------------------------------------------------------------------------------------- streams


def test_numbers_do_not_depend_on_the_number_of_threads(monkeypatch):
    size = 3 * draws_module._BLOCK + 17
    wide = fill_normal(np.empty(size), (1, 2), (3,))
    draws_module.pool.cache_clear()
    monkeypatch.setattr(draws_module.os, "cpu_count", lambda: 1)
    assert (fill_normal(np.empty(size), (1, 2), (3,)) == wide).all()
    draws_module.pool.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_are_standard_normal(dtype):
    from scipy import stats

    z = Draws(1, 0, dtype).normal("W", (700, 700))
    assert z.dtype == dtype
    assert stats.kstest(z.ravel()[::7], "norm").pvalue > 1e-3
    block = draws_module._BLOCK
    assert abs(np.corrcoef(z.ravel()[: block // 2], z.ravel()[block : block + block // 2])[0, 1]) < 0.02


def test_pairs_of_single_precision_have_the_law_of_normals_into_the_tails():
    from scipy import stats

    size = 1 << 22
    z = draws_module.polar(np.random.Generator(np.random.SFC64(1)), np.empty(size + 1, np.float32)).astype(float)

    def pvalues(z):
        found = [stats.kstest(z[::3], "norm").pvalue]
        for edge in (0.01, 3, 4, 4.5):  # how many are beyond it (or within)
            p = 2 * stats.norm.sf(edge)
            found.append(stats.binomtest(int((abs(z) > edge).sum()), len(z), p).pvalue)
        one, two = z[: size // 2], z[size // 2 + 1 :]  # of one radius
        found.append(stats.pearsonr(one, two).pvalue)
        found.append(stats.pearsonr(one**2, two**2).pvalue)
        found.append(stats.kstest((one[::3] + two[::3]) / math.sqrt(2), "norm").pvalue)
        return found

    assert min(pvalues(z)) > 1e-4
    assert abs(z[-1]) < 7 and len(np.unique(z)) > 0.9 * size
    assert min(pvalues(1.01 * z)) < 1e-4
    assert min(pvalues(np.append(z[: size // 2 + 1], -z[: size // 2]))) < 1e-4, "pairs that depend on each other"


def test_a_stream_belongs_to_its_name_seed_and_width():
    def first(n, seed, name):
        return Draws(n, seed).normal(name, (4,))[0]

    base = first(64, 0, "W")
    assert base == first(64, 0, "W")
    assert len({base, first(64, 0, "V"), first(64, 1, "W"), first(128, 0, "W")}) == 4


def test_results_do_not_depend_on_the_order_of_lines():
    w = Writer()
    w.vector("x"), w.matrix("W"), w.matrix("V")
    a, b = w.mul("W", "x", out="a"), w.mul("V", "x", out="b")
    w.moment(a, b, out="s")
    lines = w.program.lines
    shuffled = Program((w.n,), [lines[i] for i in (2, 0, 4, 1, 3, 5)])
    for method in ("dense", "matrix-free"):
        one, two = (run(p, 40, 7, keep="all", method=method) for p in (w.program, shuffled))
        np.testing.assert_allclose(one["a"], two["a"], rtol=1e-12)
        assert one["s"] == pytest.approx(two["s"], rel=1e-10)


@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-10), ("float32", 1e-3)])
@pytest.mark.parametrize("shape", [(700, 900), (5000, 3), (3, 5000), (64, 64)])
def test_products_in_slices(shape, dtype, rtol):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal(shape).astype(dtype)
    for k in (1, 2, 5, 40):
        x, y = (rng.standard_normal((k, size)).astype(dtype) for size in shape[::-1])
        for block, transposed, want in ((x, False, x @ matrix.T), (y, True, y @ matrix)):
            got = Arrays(dtype).product(block, matrix, transposed)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("block", [450, 1000, 1 << 18])
@pytest.mark.parametrize("shape", [(700, 900), (70, 16385), (3000, 20)])
def test_a_matrix_multiplied_while_it_is_drawn(shape, block, monkeypatch):
    """Blocks of draws end anywhere in a row, and a row may take many of them."""
    monkeypatch.setattr(draws_module, "_BLOCK", block)
    entries = Draws(7, 0).normal("W", shape)
    rng = np.random.default_rng(0)
    y = rng.standard_normal((2, shape[0]))
    for k in (1, 3):
        x = rng.standard_normal((k, shape[1]))
        for once, cache in ((False, False), (True, False), (False, True)):
            draws = Draws(7, 0, cache=cache)
            for _ in range(1 + cache):
                drawn = DrawnGaussian(shape, draws, "W", once=once)
                np.testing.assert_allclose(drawn.apply(x, False), x @ entries.T, atol=1e-9)
                np.testing.assert_allclose(drawn.apply(y, True), y @ entries, atol=1e-9)
            assert draws.normal("W", shape).flags.writeable is not cache


def test_a_matrix_used_once_takes_no_memory():
    w = Writer()
    w.matrix("W")
    w.moment(w.mul("W", w.vector("x")), w.vector("y"), out="s")
    run(w.program, 600, 0, method="dense")
    tracemalloc.start()
    run(w.program, 3000, 0, method="dense")
    peak = tracemalloc.get_traced_memory()[1]
    w.moment(w.mul("W", w.vector("z"), True), "x", out="t")
    tracemalloc.reset_peak()
    run(w.program, 3000, 0, method="dense")
    assert peak < 20e6 < 72e6 <= tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_memory_of_matrices_is_used_again(monkeypatch):
    monkeypatch.setattr(dense, "_SPARE", [])
    monkeypatch.setattr(dense, "_MOST_SPARE", 2 * 8 * 1200**2)
    program, values = mlp(depth=3, batch=2, steps=1), mup()
    first = run(program, 1200, 0, values=values, method="dense")
    held = {id(array) for array in dense._SPARE}
    assert len(held) == 2, "W1 and W2"
    run(program, 1200, 1, values=values, method="dense")
    assert run(program, 1200, 0, values=values, method="dense").sizes == first.sizes
    assert {id(array) for array in dense._SPARE} == held
    run(program, 1100, 0, values=values, method="dense")
    assert [array.shape for array in dense._SPARE] == [(1100, 1100)] * 2, "no more than the limit"
    draws = Draws(1200, 0)
    run(program, 1200, 0, values=values, method="dense", draws=draws)
    assert all(array.shape == (1100, 1100) for array in dense._SPARE), "shared draws stay with their owner"


def test_overflow_on_other_threads_is_no_warning():
    matrix, block = np.full((1200, 1200), 1e300), np.full((4, 1200), 1e300)
    block[0, 0] = -np.inf
    for transposed in (False, True):
        with np.errstate(all="ignore"):
            assert not np.isfinite(Arrays().product(block, matrix, transposed)).any()
    program = mlp(depth=2, batch=2, steps=1, rule=Adam())
    values = mup(2, adam=True)
    r = run(program, 600, 0, values=values | {"b[V]": Fraction(-50)}, method="dense")
    assert r.size("f[0,0]") > 1e100
    with pytest.raises(RunError, match="use smaller exponents"):
        run(program, 600, 0, values=values | {"b[V]": Fraction(-200)})


def test_common_random_numbers_across_variances():
    runs = []
    shared = Draws(64, 0)
    for variance in (1, 4):
        w = Writer()
        w.matrix("W", law=gaussian(variance))
        w.mul("W", w.vector("x"), out="h")
        runs.append(run(w.program, 64, 0, keep="h", draws=shared)["h"])
    np.testing.assert_allclose(2 * runs[0], runs[1], rtol=1e-12)
    with pytest.raises(RunError, match="of another run"):
        run(w.program, 65, 0, draws=shared)


# ------------------------------------------------------------------------------------ scheduling and liveness


def test_products_by_one_matrix_run_together():
    program = mlp(batch=4, steps=2)
    steps = schedule(program).steps
    by_w1 = [len(s) for s in steps if isinstance(s[0], MatMul) and s[0].matrix == "W1"]
    assert by_w1 == [4] * 5  # three forward passes and two backward ones, each one product of four columns
    assert sorted(line.out for s in steps for line in s) == sorted(program.names)


def test_every_variable_dies_once_and_after_its_last_use():
    plan = schedule(mlp(depth=2, batch=2, steps=1))
    dead: set = set()
    for step, dying in zip(plan.steps, plan.dying, strict=True):
        assert not dead & {a for line in step for a in line.args}
        assert not dead & set(dying)
        dead |= set(dying)
    assert dead == {line.out for step in plan.steps for line in step}


def test_vectors_are_freed():
    w = Writer()
    x = w.vector("x")
    for _ in range(200):
        x = w.fn("tanh", x)
    w.program.output(w.moment(x, x))
    tracemalloc.start()
    run(w.program, 100_000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 800_000, "200 vectors of 800 kB, of which two live at a time"


# ------------------------------------------------------------------------------------------- against by hand


def by_hand(program, n, seed, values, act=np.tanh, dact=lambda h: 1 - np.tanh(h) ** 2, direction=None, steps=3, batch=4,
            depth=3, lr=0.5):
    """Train the network of ``standins.mlp`` with plain weights, W <- W - lr n^-c direction(gradients)."""
    draws = Draws(n, seed)
    names = [f"W{i}" for i in range(depth)] + ["V"]
    shape = {name: (1 if name == "V" else n, 3 if name == "W0" else n) for name in names}
    number = {k: float(v) for k, v in values.items()}
    small = {k: draws.normal(k, shape[k]) * n ** -number[f"b[{k}]"] for k in names}
    xs = np.stack([draws.data(f"xi[{s}]", (3,)) for s in range(batch)], 1)
    ys = np.array([draws.data(f"y[{s}]", (1,))[0] for s in range(batch)])
    history: dict = {k: [] for k in names}
    outputs = []
    for _ in range(steps + 1):
        weights = {k: n ** -number[f"a[{k}]"] * small[k] for k in names}
        hs, acts = [], [xs]
        for k in names:
            hs.append(weights[k] @ acts[-1])
            acts.append(act(hs[-1]))
        outputs.append(hs[-1][0])
        g = (hs[-1][0] - ys)[None]
        for i in reversed(range(len(names))):
            k = names[i]
            history[k].append(n ** -number[f"a[{k}]"] * g @ acts[i].T / batch)
            if i:
                g = (weights[k].T @ g) * dact(hs[i - 1])
        for k in names:
            small[k] = small[k] - lr * n ** -number[f"c[{k}]"] * direction(history[k])
    return np.array(outputs)


@pytest.mark.parametrize("rule, direction", [
    (Linear(), lambda g: g[-1]),
    (Linear(Fraction(9, 10)), lambda g: sum(0.9 ** (len(g) - 1 - s) * x for s, x in enumerate(g))),
    (Adam(), lambda g: Adam().direction(g, 0.0)),
    (Sign(), lambda g: np.sign(g[-1])),
], ids=["sgd", "momentum", "adam", "signsgd"])
def test_training_agrees_with_training_by_hand(rule, direction):
    n, values = 48, mup(adam=not rule.linear)
    want = by_hand(None, n, 2, values, direction=direction)
    r = run(mlp(rule=rule), n, 2, values=values, method="dense")
    got = np.array([[r[f"f[{t},{s}]"][0] for s in range(4)] for t in range(4)])
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def test_float32_runs_in_float32_and_agrees():
    r = run(mlp(), 64, 2, values=mup(), dtype="float32", keep="all", method="dense")
    assert {v.dtype for v in r.kept.values() if isinstance(v, np.ndarray)} == {np.dtype("float32")}


def test_sizes_are_safe_against_overflow_of_squares():
    w = Writer()
    big, tiny = w.lin((Scale.power("n", 70), w.vector("x")), out="big"), w.lin((Scale.power("n", -70), "x"), out="tiny")
    r = run(w.program, 1000, 0)
    assert r.size(big) == pytest.approx(1e210 * r.size("x"))
    assert r.size(tiny) == pytest.approx(1e-210 * r.size("x"))
    assert run(w.program, 1000, 0, dtype="float32").size(tiny) == 0.0


# ----------------------------------------------------------------------------------------------------- errors


def test_errors_say_what_to_do():
    program = mlp(depth=1, batch=1, steps=1)
    with pytest.raises(RunError, match="use one of: auto, dense, matrix-free"):
        run(program, 8, 0, values=mup(1), method="fast")
    with pytest.raises(RunError, match="use numpy or torch"):
        run(program, 8, 0, values=mup(1), backend="jax")
    with pytest.raises(NotCoveredError, match=r"give a\[W0\] a value"):
        run(program, 8, 0)
    with pytest.raises(ProgramError, match="no such variable"):
        run(program, 8, 0, values=mup(1), keep="nothing")
    with pytest.raises(RunError, match="keep a product"):
        run(program, 8, 0, values=mup(1), keep="V")
    r = run(program, 8, 0, values=mup(1))
    with pytest.raises(RunError, match=r"keep=\['dh\[1,W0,0\]'\]"):
        r["dh[1,W0,0]"]
    with pytest.raises(RunError, match="name a vector or a scalar"):
        r.size("V")


def test_without_torch_the_extra_is_named():
    code = ("import sys; sys.modules['torch'] = None\n"
            "from tensorprog.finite.torch_backend import torch_arrays\n"
            "try: torch_arrays('float64')\n"
            "except Exception as error: print(type(error).__name__, error.fix)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == f"{MissingExtraError.__name__} pip install 'tensorprog[torch]'"
