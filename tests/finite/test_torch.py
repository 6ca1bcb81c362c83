"""The torch backend runs the same matrices as numpy's and gets the same numbers."""

import importlib.util
from fractions import Fraction

import numpy as np
import pytest

from tensorprog.errors import RunError
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run

from .standins import Adam, Linear, mlp, mup

pytest.importorskip("torch", reason="the torch backend is an extra: pip install 'tensorprog[torch]'")


@pytest.mark.parametrize("method", ["dense", "matrix-free"])
@pytest.mark.parametrize("rule", [Linear(Fraction(9, 10)), Adam()], ids=lambda r: r.name)
def test_torch_agrees_with_numpy(method, rule):
    program, values = mlp(depth=2, batch=2, steps=2, rule=rule), mup(2, adam=not rule.linear)
    draws = Draws(96, 3)
    ours = run(program, 96, 3, values=values, method=method, draws=draws, keep="dh[2,W1,0]")
    theirs = run(program, 96, 3, values=values, method=method, draws=draws, keep="dh[2,W1,0]", backend="torch")
    assert isinstance(theirs["dh[2,W1,0]"], np.ndarray)
    np.testing.assert_allclose(theirs["dh[2,W1,0]"], ours["dh[2,W1,0]"], rtol=1e-8, atol=1e-12)
    for name, size in ours.sizes.items():
        assert theirs.size(name) == pytest.approx(size, rel=1e-8, abs=1e-14), name


def test_float32_stays_float32():
    r = run(mlp(depth=1, batch=1, steps=1), 64, 0, values=mup(1), dtype="float32", backend="torch", keep="dh[1,W0,0]")
    assert r["dh[1,W0,0]"].dtype == np.float32


def test_an_absent_device_is_named():
    with pytest.raises(RunError, match="use 'torch'"):
        run(mlp(depth=1, batch=1, steps=1), 64, 0, values=mup(1), backend="torch:nowhere")


def test_torch_is_really_there():
    assert importlib.util.find_spec("torch") is not None
