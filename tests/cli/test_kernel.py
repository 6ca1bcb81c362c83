"""``tensorprog kernel``: arrays in, an array out."""

import numpy as np
import pytest

import tensorprog as tp

from .terminal import answer, run


@pytest.fixture
def X():
    x = np.random.default_rng(0).standard_normal((5, 3))
    np.save("X.npy", x)
    np.save("Y.npy", x[:2])
    return x


def test_kernel_json(capsys, X):
    given = ("kernel", "mlp", "--set", "activation=relu", "--kind", "nngp", "--inputs", "X.npy", "--out", "K.npy")
    found = answer(capsys, *given, "--variance", "hidden=2")
    assert (found["shape"], found["method"], found["kind"]) == ([5, 5], "closed form", "nngp")
    assert (found["inputs"], found["outputs"], found["parametrization"]) == (["xi"], ["f"], "ntp")
    want = tp.kernels.nngp(tp.nets.mlp(activation="relu"), variances={"hidden": 2})(X)
    assert np.array_equal(np.load("K.npy"), want)


def test_kernel_of_two_sets_of_inputs(capsys, X):
    found = answer(capsys, "kernel", "mlp", "--kind", "ntk", "--inputs", "X.npy", "--inputs2", "Y.npy", "--out", "K",
                   "--multiplier", "*=2", "--rate", "readout=0")
    assert found["shape"] == [5, 2]
    want = tp.kernels.ntk(tp.nets.mlp(), multipliers={"*": 2}, rates={"readout": 0})(X, X[:2])
    assert np.array_equal(np.load("K"), want)  # the name is taken as it is


def test_kernel_for_people(capsys, X):
    status, out, err = run(capsys, "kernel", "mlp", "--inputs", "X.npy", "--out", "K.npy", "--set", "activation=erf")
    assert (status, err) == (0, "")
    assert out == "ntk of f under ntp: 5 x 5, float64, closed form\nwritten to K.npy\n"


@pytest.mark.parametrize("words, status, message", [
    (("--inputs", "Z.npy", "--out", "K.npy"), 2, "no such file"),
    (("--inputs", "text.npy", "--out", "K.npy"), 2, "not an array of numbers"),
    (("--inputs", "X.npy", "--out", "no/K.npy"), 2, "there is no such folder"),
    (("--inputs", "X.npy", "--out", "K.npy", "--kind", "gp"), 2, "no such kernel"),
    (("--inputs", "X.npy", "--out", "K.npy", "--set", "d_in=4"), 2, "has 4 coordinates"),
    (("--inputs", "X.npy", "--out", "K.npy", "--variance", "hidden"), 2, "not a weight, role or * and its number"),
    (("--inputs", "X.npy", "--out", "K.npy", "--variance", "hiden=2"), 2, "no role of this name"),
    (("--inputs", "X.npy", "--out", "K.npy", "--parametrization", "sp"), 3, "grows with n"),
])
def test_kernel_refuses(capsys, X, words, status, message):
    with open("text.npy", "w") as file:
        file.write("1, 2, 3")
    found, out, err = run(capsys, "kernel", "mlp", *words)
    assert (found, out) == (status, "") and message in err and "fix:" in err
