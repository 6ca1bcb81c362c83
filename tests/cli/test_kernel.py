"""``tensorprog kernel``: arrays in, an array out."""

from pathlib import Path

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
    found = answer(capsys, "kernel", "mlp", "--set", "activation=erf", "--kind", "ntk", "--inputs", "X.npy",
                   "--inputs2", "Y.npy", "--out", "K", "--multiplier", "*=2", "--rate", "readout=0")
    assert found["shape"] == [5, 2]
    want = tp.kernels.ntk(tp.nets.mlp(activation="erf"), multipliers={"*": 2}, rates={"readout": 0})(X, X[:2])
    assert np.array_equal(np.load("K"), want)  # the name is taken as it is


def test_kernel_for_people(capsys, X):
    status, out, err = run(capsys, "kernel", "mlp", "--inputs", "X.npy", "--out", "K.npy", "--set", "activation=erf")
    assert (status, err) == (0, "")
    assert out == "ntk of f under ntp: 5 x 5, float64, closed form\nwritten to K.npy\n"


@pytest.mark.parametrize("words, status, message", [
    (("--inputs", "Z.npy", "--out", "K.npy"), 2, "no such file"),
    (("--inputs", "text.npy", "--out", "K.npy"), 2, "not an array of numbers"),
    (("--inputs", "X.npy", "--out", "no/K.npy"), 2, "there is no such folder"),
    (("--inputs", "X.npy", "--out", "K.npy", "--error", "no/E.npy"), 2, "there is no such folder"),
    (("--inputs", "X.npy", "--out", "K.npy", "--exponent", "alpha"), 2, "its rational number"),
    (("--inputs", "X.npy", "--out", "K.npy", "--exponent", "beta=1"), 2, "no such exponent"),
    (("--inputs", "X.npy", "--out", "K.npy", "--input", "xo"), 2, "fix:"),
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


def test_a_sampled_kernel_has_an_error(capsys):
    x = np.random.default_rng(0).standard_normal((2, 2, 3))
    np.save("X.npy", x)
    given = ("kernel", "gru", "--set", "length=2", "--kind", "nngp", "--inputs", "X.npy", "--out", "K.npy",
             "--error", "E.npy", "--samples", "64", "--seed", "3")
    found = answer(capsys, *given)
    K, error = tp.kernels.nngp(tp.nets.gru(2), samples=64, seed=3).estimate(x)
    assert found["method"] == "sampling" and np.array_equal(np.load("K.npy"), K)
    assert np.array_equal(np.load("E.npy"), error) and found["error"] == error.max() > 0
    _, out, _ = run(capsys, *given)
    assert "sampling, standard error at most" in out and "standard errors written to E.npy" in out


def test_inputs_and_exponents_of_a_transformer(capsys):
    x = np.eye(5)[np.array([[0, 1], [2, 1]])]
    np.save("X.npy", x.astype(np.float32))
    found = answer(capsys, "kernel", "transformer", "--set", "depth=1", "--inputs", "X.npy", "--out", "K.npy",
                   "--input", "tok1", "--input", "tok2", "--exponent", "alpha=1", "--kind", "nngp", "--output", "f_t2")
    want = tp.kernels.nngp(tp.nets.transformer(1), inputs=("tok1", "tok2"), exponents={"alpha": 1}, output="f_t2")
    assert (found["inputs"], found["error"], found["dtype"]) == (["tok1", "tok2"], 0.0, "float32")
    assert np.array_equal(np.load("K.npy"), want(x.astype(np.float32)))


def test_what_was_there_stays_until_the_kernel_is_done(capsys, X, monkeypatch):
    np.save("K.npy", X)

    def fails(*args, **options):
        raise MemoryError

    monkeypatch.setattr(tp.kernels.Kernel, "_fill", fails)
    status, _, _ = run(capsys, "kernel", "mlp", "--inputs", "X.npy", "--out", "K.npy")
    assert status and np.array_equal(np.load("K.npy"), X)
    assert sorted(p.name for p in Path().glob("K*")) == ["K.npy"]


def test_no_inputs_at_all(capsys):
    np.save("X.npy", np.empty((0, 3)))
    assert answer(capsys, "kernel", "mlp", "--inputs", "X.npy", "--out", "K.npy")["shape"] == [0, 0]
    assert np.load("K.npy").shape == (0, 0)


def test_the_error_has_a_file_of_its_own(capsys, X):
    status, _, err = run(capsys, "kernel", "mlp", "--inputs", "X.npy", "--out", "K.npy", "--error", "./K.npy")
    assert status == 2 and "the kernel itself goes there" in err and not Path("K.npy").exists()
