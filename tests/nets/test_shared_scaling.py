"""Scalings of weights that positions or times share: the published tables' rows, maximality, and measurement."""

from fractions import Fraction
from time import perf_counter

import pytest

import tensorprog as tp
from tensorprog.finite.fit import Verdict
from tensorprog.interp.scaling import Scaling
from tensorprog.interp.unroll import symbol, unroll
from tensorprog.scaling.derive import first_blowup

HALF = Fraction(1, 2)

NETWORKS = {
    "cnn": lambda: tp.nets.cnn(bias=True),
    "cnn flat": lambda: tp.nets.cnn(activation="relu", readout="flatten", pool=2, padding="circular"),
    "cnn 2d": lambda: tp.nets.cnn(size="3x4", kernel="3x2", stride="1x2", bias=True),
    "rnn": lambda: tp.nets.rnn(bias=True),
    "rnn all": lambda: tp.nets.rnn(4, depth=2, readout="all"),
    "gru": lambda: tp.nets.gru(bias=True),
    "gru average": lambda: tp.nets.gru(2, depth=2, readout="average"),
}

#: Tensor Programs V: (a, b, c) of W = n^-a w, w ~ N(0, n^-2b), learning rate n^-c; by role under SGD and Adam.
TABLES = {
    ("table3", "sgd"): {"input": (0, 0, -1), "bias": (0, 0, -1), "hidden": (0, HALF, 0), "readout": (0, 1, 1)},
    ("table3", "adam"): {"input": (0, 0, 0), "bias": (0, 0, 0), "hidden": (0, HALF, 1), "readout": (0, 1, 1)},
    ("table8", "sgd"): {"input": (0, 0, -1), "bias": (0, 0, -1), "hidden": (0, HALF, 0), "readout": (1, 0, -1)},
    ("table8", "adam"): {"input": (0, 0, 0), "bias": (0, 0, 0), "hidden": (0, HALF, 1), "readout": (1, 0, 0)},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", NETWORKS)
def test_shared_weights_have_the_rows_of_the_published_tables(name, optimizer):
    derived = tp.derive(NETWORKS[name](), optimizer)
    for form in ("table3", "table8"):
        table = TABLES[form, optimizer]
        assert {(w.role, (w.a, w.b, w.c)) for w in derived.in_form(form).weights.values()} == {
            (role, table[role]) for role in {w.role for w in derived.weights.values()}}
    assert all(v.first_learns == 1 for v in derived.learning.values())


@pytest.mark.parametrize("name", ["cnn", "rnn", "gru"])
def test_a_larger_learning_rate_of_any_weight_is_unstable(name):
    net = NETWORKS[name]()
    values = tp.derive(net, "adam").values
    run = unroll(net, "adam", steps=2)
    assert first_blowup(run, Scaling(run.program, values)) is None
    for w in net.params:
        faster = values | {symbol("c", w.out): values[symbol("c", w.out)] - Fraction(1, 4)}
        assert first_blowup(run, Scaling(run.program, faster)) is not None, w.out


@pytest.mark.parametrize("name", ["cnn", "rnn", "gru"])
def test_deriving_by_default_is_quick(name):
    start = perf_counter()
    tp.derive(tp.nets.ARCHITECTURES[name](), "adam")
    assert perf_counter() - start < 2


@pytest.mark.parametrize("name, parametrization, verdict", [
    ("cnn", "mup", "feature_learning"), ("rnn", "mup", "feature_learning"), ("gru", "mup", "feature_learning"),
    ("cnn", "ntp", "kernel"), ("rnn", "ntp", "kernel"), ("gru", "ntp", "kernel"), ("rnn", "sp", "unstable"),
])
def test_verdicts(name, parametrization, verdict):
    assert tp.classify(tp.nets.ARCHITECTURES[name](), parametrization, optimizer="sgd").verdict == verdict


def test_what_breaks_has_a_name():
    variable, step, e = tp.classify(tp.nets.cnn(), "sp", optimizer="sgd").first_blowup
    assert variable == "h2_k2_t1" and step == 1 and e == HALF


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["cnn", "cnn flat", "rnn all", "gru"])
def test_what_is_derived_is_measured(name, optimizer):
    found = tp.confirm(NETWORKS[name](), optimizer=optimizer, budget=12)
    assert len(found.checks) > 20
    assert found.verdict is not Verdict.REFUTED, str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name, label", [("cnn", "Uh2_k2@1"), ("rnn", "Uw1@1"), ("gru", "Uwz1@1")])
def test_a_wrong_size_of_a_shared_weights_update_is_refuted(name, label):
    found = tp.confirm(NETWORKS[name](), optimizer="sgd", steps=1, budget=20, wrong={label: Fraction(-1, 2)})
    assert found.verdict is Verdict.REFUTED
    assert {c.what for c in found.checks if c.verdict is Verdict.REFUTED} == {label}
