"""Increments against high precision."""

import mpmath
import numpy as np
import pytest
import sympy

from tensorprog.atoms.diff import Diff
from tensorprog.atoms.multivariate import Multivariate, Softmax
from tensorprog.atoms.registry import nonlinearities, nonlinearity
from tensorprog.errors import NotCoveredError

SMOOTH = [r for r in nonlinearities() if r.partial(0) is not None]


@pytest.mark.parametrize("record", SMOOTH, ids=str)
def test_small_increments_do_not_cancel(record):
    x = np.array([-1.7, -0.41, 0.37, 0.83, 2.3])
    x = x if record.domain in ("real", "nonzero") else x[x > 0]
    symbol = sympy.Symbol("x", real=True)
    phi = sympy.lambdify(symbol, record.expression(symbol), [{"Heaviside": lambda x, _: mpmath.mpf(x > 0)}, "mpmath"])
    slope = np.abs(record.partial(0)(x)).max()
    with mpmath.workdps(60):
        for step in (1e-15, -1e-7, 3e-3, 0.019, -0.05, 0.7):
            if record.domain != "real" and abs(step) > 0.1:
                continue
            want = [float(phi(mpmath.mpf(v) + mpmath.mpf(step)) - phi(mpmath.mpf(v))) for v in x]
            got = Diff(record).evaluate({}, {}, x, np.full_like(x, step))
            atol = 1e-11 * abs(step) * slope if abs(step) < 0.02 else 1e-14
            np.testing.assert_allclose(got, want, rtol=1e-11, atol=atol, err_msg=str(step))


def test_increments_across_kinks_and_jumps_are_plain_differences():
    x, dx = np.array([-0.001, 0.001, 0.0, 1.0, -1.0]), np.array([0.003, -0.003, 0.001, 1e-20, 1e-20])
    np.testing.assert_allclose(Diff(nonlinearity("relu")).evaluate({}, {}, x, dx), [0.002, -0.001, 0.001, 1e-20, 0])
    np.testing.assert_array_equal(Diff(nonlinearity("step")).evaluate({}, {}, x, dx), [1, -1, 1, 0, 0])
    np.testing.assert_array_equal(Diff(nonlinearity("sign")).evaluate({}, {}, x, dx), [2, -2, 1, 0, 0])


def test_increments_of_several_arguments():
    fn = Diff(Softmax(2, 0))
    assert fn.arity == 4
    assert fn.evaluate({}, {}, 0.0, 0.0, 1e-20, 0.0) == pytest.approx(0.25e-20, rel=1e-12)
    kinked = Multivariate.from_callable(lambda x, y: np.maximum(x, y), 2, "max")
    assert Diff(kinked).evaluate({}, {}, 0.0, 1e-3, 2e-3, 0.0) == pytest.approx(1e-3)


def test_increments_keep_the_dtype_and_mix_vectors_with_scalars():
    tanh = Diff(nonlinearity("tanh"))
    x = np.array([0.5, 1.0], np.float32)
    assert tanh.evaluate({}, {}, x, np.full_like(x, 1e-9)).dtype == np.float32
    assert type(tanh.evaluate({}, {}, 0.5, 0.1)) is float
    np.testing.assert_allclose(tanh.evaluate({}, {}, x, 1e-9), 1e-9 / np.cosh(x) ** 2, rtol=1e-6)
    np.testing.assert_allclose(tanh.evaluate({}, {}, 0.5, np.array([1e-9, 1.0])),
                               [1e-9 / np.cosh(0.5) ** 2, np.tanh(1.5) - np.tanh(0.5)])


def test_facts_and_spelling():
    assert Diff(nonlinearity("tanh")).parity == "odd"
    assert Diff(nonlinearity("relu")).degree == 1
    assert Diff(nonlinearity("hermite", 3)).spelled("x", "dx") == "diff_hermite(x, dx, 3)"
    assert Diff(nonlinearity("tanh")) == Diff(nonlinearity("tanh")) != Diff(nonlinearity("relu"))
    with pytest.raises(NotCoveredError, match="not differentiated"):
        Diff(nonlinearity("tanh")).partial(0)
