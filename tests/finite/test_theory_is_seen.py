"""What the calculus says of networks in training is what is seen at finite width, and what is wrong is refuted.

Widths and seeds are fixed, so that the results do not depend on the machine. Exponents need a wide range of widths
more than they need many widths. Plain SGD never forms its updates, and wide networks cost little; Adam does.
"""

from fractions import Fraction

import pytest

import tensorprog as tp
from tensorprog.finite.confirm import ENOUGH, Confirmation, confirm_exponents
from tensorprog.finite.fit import Verdict
from tensorprog.finite.network import confirm, predict

QUARTER, HALF = Fraction(1, 4), Fraction(1, 2)

MLP = {
    "sgd": {32: 1200, 64: 1200, 128: 900, 256: 600, 512: 400, 1024: 300, 2048: 200, 4096: 120, 8192: 80},
    "adam": {16: 2000, 32: 2000, 64: 2000, 128: 1200, 256: 800, 512: 400, 1024: 150},
    ("ntp", "adam"): {16: 2500, 32: 2500, 64: 2500, 128: 2000, 256: 1500, 512: 1200, 1024: 500},
}
TRANSFORMER = {
    "sgd": {32: 600, 128: 500, 512: 400, 2048: 350, 8192: 200},
    "adam": {8: 1000, 16: 1000, 32: 1000, 64: 800, 128: 400, 256: 200, 512: 60},
    ("sp", "adam"): {8: 3000, 32: 2500, 64: 1500, 128: 1000, 256: 600, 512: 200},
    ("ntp", "adam"): {16: 700, 64: 600, 128: 400, 256: 350, 512: 300},
}


def assert_seen(c: Confirmation):
    """Assert that no prediction is refuted, nine in ten are confirmed, and the others say why they are not."""
    assert not [x.what for x in c.checks if x.verdict is Verdict.REFUTED], str(c)
    assert sum(x.verdict is Verdict.CONFIRMED for x in c.checks) >= ENOUGH * len(c.checks) > 0, str(c)
    assert all(x.reason for x in c.checks), str(c)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("parametrization", ["sp", "ntp", "mup"])
def test_mlp(parametrization, optimizer):
    noisy = (parametrization, optimizer) == ("ntp", "adam")  # see below
    c = confirm(tp.nets.mlp(2), parametrization, optimizer=optimizer, steps=3, batch=4 if noisy else 2,
                lr=QUARTER / 4 if noisy else QUARTER, seeds=MLP.get((parametrization, optimizer)) or MLP[optimizer])
    assert len(c.checks) == (14 if parametrization == "sp" else 44), "SP blows up at the first step, NTP and µP do not"
    assert_seen(c)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("parametrization", ["sp", "ntp", "mup"])
def test_transformer(parametrization, optimizer):
    # outputs of order 1 are random numbers: more samples a run, and a narrower network, average them
    noisy = (parametrization, optimizer) == ("ntp", "adam")
    network = tp.nets.transformer(1, heads=1, ffn=1 if noisy else 4)
    how = {"optimizer": optimizer, "batch": 4 if noisy else 1, "lr": QUARTER / 2 if noisy else QUARTER}
    # where the predictions end at the first step, the steps after it need not be run
    steps = 1 if parametrization == "sp" else 3
    stopped = predict(network, parametrization, steps=steps, **how).stopped
    assert (stopped or "").endswith("@1") == (parametrization == "sp")
    c = confirm(network, parametrization, steps=steps, **how,
                seeds=TRANSFORMER.get((parametrization, optimizer)) or TRANSFORMER[optimizer])
    assert_seen(c)


# ----------------------------------------------------------------------------------------- what is wrong is refuted

#: Label -> how much is added to the exponent that is predicted.
WRONG = {
    "h1@0": HALF, "x2@0": -QUARTER, "f@0": -HALF,  # values, one of them a scalar
    "Dh1@1": QUARTER, "Dh2@1": -HALF, "Df@1": QUARTER,  # increments
    "Uh2@1": HALF, "Uf@1": -QUARTER,  # updates
    "dh1@0": -QUARTER, "dx2@0": HALF,  # gradients
}


@pytest.mark.slow
def test_ten_wrong_predictions_are_refuted():
    network, told = tp.nets.mlp(2), {"parametrization": "mup", "optimizer": "sgd", "steps": 1, "lr": QUARTER}
    true = predict(network, **told).exponents
    wrong = {label: true[label] + off for label, off in WRONG.items()}
    seeds = {1 << k: 1000 for k in range(6, 15)}
    c = confirm(network, **told, seeds=seeds, method="matrix-free", wrong=wrong)
    assert [x.what for x in c.checks if x.verdict is not Verdict.REFUTED and x.what in wrong] == [], str(c)
    rest = [x for x in c.checks if x.what not in wrong]
    assert rest and all(x.verdict is Verdict.CONFIRMED for x in rest), str(c)
    assert c.verdict is Verdict.REFUTED


def test_two_wrong_predictions_are_refuted():
    """The fast twin, with what is true confirmed by the same runs."""
    network, told = tp.nets.mlp(1), {"parametrization": "mup", "optimizer": "sgd", "steps": 1, "lr": QUARTER}
    seeds = {1 << k: 100 for k in range(6, 14)}
    p = predict(network, **told)
    true = {k: p.exponents[k] for k in ("h1@0", "Dh1@1", "dh1@0")}
    wrong = {"Dh1@1": true["Dh1@1"] - HALF, "h1@0": true["h1@0"] + QUARTER}
    for expected, exponents in ((Verdict.CONFIRMED, true), (Verdict.REFUTED, wrong)):
        c = confirm_exponents(p.trajectory.program, exponents, groups={k: p.groups[k] for k in exponents},
                              values=p.values, seeds=seeds)
        assert {x.verdict for x in c.checks} == {expected}, str(c)
