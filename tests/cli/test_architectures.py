"""Built-in architectures on the command line, with their options."""

import numpy as np
import pytest

import tensorprog as tp

from .terminal import answer, run

CASES = {
    "cnn": ("size=2x3", "kernel=1x2", "padding=circular", "readout=flatten", "activation=relu", "depth=1"),
    "rnn": ("length=2", "activation=erf", "bias=yes"),
    "gru": ("length=2", "d_in=2"),
}


def spec(name):
    return [name, *(word for option in CASES[name] for word in ("--set", option))]


@pytest.mark.parametrize("name", CASES)
def test_show_derive_classify_and_limit(capsys, name):
    shown = answer(capsys, "show", *spec(name))
    assert shown["outputs"] == ["f"] and shown["dims"]["n"] == "1"
    derived = answer(capsys, "derive", *spec(name), "--optimizer", "adam")["parameters"]
    table = {"input": ("0", "0"), "bias": ("0", "0"), "hidden": ("1/2", "1"), "readout": ("1", "1")}
    forms = answer(capsys, "derive", *spec(name), "--optimizer", "adam", "--form", "table3")["parameters"]
    assert set(forms) == set(derived) and {(w["b"], w["c"]) for w in forms.values()} == {
        table[w["role"]] for w in forms.values()}
    verdict = answer(capsys, "classify", *spec(name), "--parametrization", "ntp", "--optimizer", "sgd")["verdict"]
    assert verdict == "kernel"
    found = answer(capsys, "limit", *spec(name), "--parametrization", "ntp")["outputs"]["f"]
    assert found["kind"] == "gaussian" and found["variance"] > 0


def test_options_of_two_axes_are_those_of_python(capsys):
    shown = answer(capsys, "show", *spec("cnn"))
    net = tp.nets.cnn(1, size=(2, 3), kernel=(1, 2), padding="circular", readout="flatten", activation="relu")
    assert [x["name"] for x in shown["lines"]] == list(net.names)


def test_kernel_of_a_recurrent_network(capsys):
    X = np.random.default_rng(0).standard_normal((4, 2, 3))
    np.save("X.npy", X)
    found = answer(capsys, "kernel", *spec("rnn"), "--inputs", "X.npy", "--out", "K.npy")
    assert found["inputs"] == ["xi_t1", "xi_t2"]
    net = tp.nets.rnn(2, activation="erf", bias=True)
    assert np.array_equal(np.load("K.npy"), tp.kernels.ntk(net)(X))


def test_confirm_answers(capsys):
    small = ("--steps", "1", "--widths", "16,32,64,128", "--seeds", "2")
    checks = answer(capsys, "confirm", *spec("rnn"), "--optimizer", "sgd", *small, status=3)["checks"]
    assert {"h1@0", "Uu1@1", "Uw1@1", "Dh1@1", "Df@1"} <= {c["what"] for c in checks}
    assert "refuted" not in {c["verdict"] for c in checks}


@pytest.mark.parametrize("option, words", [
    ("size=4by4", "size=3x3"), ("kernel=0", "at least 1"), ("padding=zero", "circular"), ("pad=same", "did you mean"),
])
def test_wrong_options(capsys, option, words):
    status, out, err = run(capsys, "derive", "cnn", "--set", option)
    assert (status, out) == (2, "") and words in err
