"""Losses and update rules, by discovery."""

import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import sympy

from tensorprog.atoms import losses as losses_folder
from tensorprog.atoms import optimizers as optimizers_folder
from tensorprog.atoms.loss import Loss, LossGradient
from tensorprog.atoms.losses import generic, loss, losses
from tensorprog.atoms.optimizers import optimizer, optimizers
from tensorprog.atoms.rule import Rule
from tensorprog.errors import NotCoveredError, ParseError, RecordError


def files(package) -> set[str]:
    return {p.stem for p in Path(package.__file__).parent.glob("*.py")} - {"__init__"}


def test_every_file_holds_the_record_of_its_name():
    assert files(losses_folder) == {x.name for x in losses()}
    assert files(optimizers_folder) == {x.name for x in optimizers()}


# -------------------------------------------------------------------------------------------------- losses

FORMULAS = {
    "squared": lambda f, y: sum((a - b) ** 2 for a, b in zip(f, y, strict=True)) / 2,
    "logistic": lambda f, y: sum(sympy.log(1 + sympy.exp(-a * b)) for a, b in zip(f, y, strict=True)),
    "cross_entropy": lambda f, y: sum(-b * sympy.log(sympy.exp(a) / sum(map(sympy.exp, f)))
                                      for a, b in zip(f, y, strict=True)),
}


@pytest.mark.parametrize("record", losses(), ids=str)
def test_gradients_are_those_of_the_formula(record):
    rng = np.random.default_rng(0)
    y = np.array([0.0, 1.0, 0.0]) if record.gradient.mixes_coordinates else np.array([-1.0, 1.0, 1.0])
    outputs = sympy.symbols("f:3", real=True)
    total = FORMULAS[record.name](outputs, [sympy.Integer(int(v)) for v in y])
    for f in rng.normal(size=(4, 3)):
        at = dict(zip(outputs, f, strict=True))
        assert record.value(f, y) == pytest.approx(float(total.subs(at)), rel=1e-12)
        want = [float(total.diff(s).subs(at)) for s in outputs]
        np.testing.assert_allclose(record.gradient.evaluate({}, {}, f, y), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("record", losses(), ids=str)
def test_gradients_are_functions_of_two_arguments(record):
    chi = record.gradient
    assert chi.arity == 2
    assert chi.spelled("f", "y") == f"{record.name}_gradient(f, y)"
    f = np.array([1e4, -1e4, 0], np.float32)
    value = chi.evaluate({}, {}, f, np.array([1.0, 0.0, 0.0]))
    assert value.dtype == np.float32
    assert np.all(np.isfinite(value))
    rows = chi.evaluate({}, {}, np.stack([f, f[::-1]]), np.eye(3)[:2])
    np.testing.assert_array_equal(rows[0], value)
    assert pickle.loads(pickle.dumps(record)) is record
    if chi.mixes_coordinates:
        with pytest.raises(NotCoveredError, match="no coordinatewise derivative"):
            chi.partial(0)
    else:
        assert chi.partial(0).name == f"d0_{record.name}_gradient"
        with pytest.raises(NotCoveredError):
            chi.partial(0).partial(0)
    if chi.linear:
        p, q = map(float, chi.linear)
        assert chi.evaluate({}, {}, 3.0, 5.0) == p * 3 + q * 5


def test_which_losses_mix_coordinates():
    assert {x.name for x in losses() if x.gradient.mixes_coordinates} == {"cross_entropy"}
    assert {x.name for x in losses() if x.gradient.linear} == {"squared"}


def square_gradient(f, y):
    return 2 * (f - y)


def test_a_users_loss():
    mine = generic(square_gradient, value=lambda f, y: float(np.sum((f - y) ** 2)), name="mine")
    assert mine.gradient.partial(0).evaluate({}, {}, 0.3, 0.1) == pytest.approx(2)
    own = generic(square_gradient)
    assert pickle.loads(pickle.dumps(own)).gradient == own.gradient


def test_wrong_losses_are_refused():
    with pytest.raises(RecordError, match=r"loss 'mine': gradient disagrees with finite differences(.|\n)* at f ="):
        generic(square_gradient, value=lambda f, y: float(np.sum((f - y) ** 2)) / 2, name="mine")
    with pytest.raises(RecordError, match="another shape"):
        generic(lambda f, y: 1.0)
    with pytest.raises(RecordError, match="no source"):
        Loss("mine", None, LossGradient("mine", square_gradient))
    wrong = LossGradient("mine", square_gradient, (lambda f, y: f, lambda f, y: y))
    with pytest.raises(RecordError, match="derivative 0 of the gradient disagrees"):
        Loss("mine", None, wrong, ("user",))
    with pytest.raises(ParseError, match=r"no such loss(.|\n)*squared"):
        loss("squarred")


# ---------------------------------------------------------------------------------------------- optimizers

GRADIENTS = [np.array(g) for g in ([[0.3, -2.0], [0.0, 1e-3]], [[-0.1, -1.0], [0.0, 5.0]], [[0.9, 0.2], [0.0, -3.0]])]


@pytest.mark.parametrize("rule", optimizers(), ids=str)
def test_directions(rule):
    assert rule.degree in (0, 1)
    assert rule.lr_gauge == 1 + rule.degree
    assert rule.family == ("sgd" if rule.linear else "sign")
    for t in range(3):
        g = GRADIENTS[: t + 1]
        d = rule.direction(g)
        assert d.shape == (2, 2)
        assert d[1, 0] == 0
        np.testing.assert_allclose(rule.direction([-x for x in g]), -d, rtol=1e-12)
        for c in (1e-6, 1e6):
            np.testing.assert_allclose(rule.direction([c * x for x in g]), c ** float(rule.degree) * d, rtol=1e-9)
        if rule.linear:
            weights = rule.linear_weights(t)
            assert len(weights) == t + 1
            assert all(isinstance(w, Fraction) for w in weights)
            np.testing.assert_allclose(d, sum(float(w) * x for w, x in zip(weights, g, strict=True)), rtol=1e-12)
        assert rule.direction([x.astype(np.float32) for x in g]).dtype == np.float32
    if not rule.linear:
        with pytest.raises(NotCoveredError, match="not linear"):
            rule.linear_weights(0)
    assert pickle.loads(pickle.dumps(rule)) is rule


def test_adam_is_the_published_loop():
    m = v = np.zeros((2, 2))
    for t, g in enumerate(GRADIENTS, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        want = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(optimizer("adam").direction(GRADIENTS[:t], 1e-8), want, rtol=1e-9)
    assert optimizer("adam").has_eps
    assert optimizer("adamw").weight_decay == Fraction(1, 10)
    np.testing.assert_array_equal(optimizer("adam").direction(GRADIENTS[:1]), np.sign(GRADIENTS[0]))


def test_gradients_are_not_changed():
    before = [g.copy() for g in GRADIENTS]
    for rule in optimizers():
        rule.direction(GRADIENTS, 1e-8)
    for g, old in zip(GRADIENTS, before, strict=True):
        np.testing.assert_array_equal(g, old)


SIGN_LIKE = {"degree": Fraction(0), "weights": None}


@pytest.mark.parametrize("wrong, message", [
    ({"sources": ()}, "no source"),
    ({"degree": Fraction(1, 2)}, "degree is 1"),
    ({"degree": Fraction(0)}, "of degree 1 is linear"),
    ({"weights": None}, "states its weights"),
    ({"weights": lambda t: (Fraction(1),) * (t + 1)}, r"disagrees with linear_weights\(1\)"),
    ({"direction_of": lambda g, eps: g[-1] ** 2}, "disagrees with linear_weights"),
    (SIGN_LIKE, "changes when the gradients are rescaled"),
    (SIGN_LIKE | {"direction_of": lambda g, eps: np.abs(np.sign(g[-1]))}, "not odd"),
    (SIGN_LIKE | {"direction_of": lambda g, eps: np.sign(np.roll(g[-1], 1))}, "zero gradients"),
])
def test_wrong_rules_are_refused(wrong, message):
    good = {"name": "mine", "degree": Fraction(1), "direction_of": lambda g, eps: g[-1],
            "weights": lambda t: (Fraction(0),) * t + (Fraction(1),), "sources": ("user",)}
    assert Rule(**good).linear
    with pytest.raises(RecordError, match=f"optimizer 'mine'(.|\n)*{message}"):
        Rule(**good | wrong)


def test_unknown_optimizer():
    with pytest.raises(ParseError, match=r"no such optimizer(.|\n)*adam"):
        optimizer("adm")


def test_gradients_of_losses_travel_between_processes():
    f, y = np.array([0.3, -1.0]), np.array([1.0, 0.0])
    for record in losses():
        again = pickle.loads(pickle.dumps(record.gradient))
        assert again == record.gradient
        np.testing.assert_array_equal(again.evaluate({}, {}, f, y), record.gradient.evaluate({}, {}, f, y))
