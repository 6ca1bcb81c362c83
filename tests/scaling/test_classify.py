"""classify against the theorems of Tensor Programs IV and IVb, on random parametrizations and on published ones."""

import json
import random
from collections import Counter
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ParseError
from tensorprog.interp.scaling import Scaling
from tensorprog.interp.unroll import symbol, unroll
from tensorprog.scaling.classify import classified, classify

from . import theorems

KNOWN = json.loads((Path(__file__).parents[1] / "known_answers" / "scalings.json").read_text())


@cache
def training(depth: int, activation: str, optimizer: str, steps: int = 3):
    return unroll(tp.nets.mlp(depth, activation=activation), optimizer, steps=steps)


def names(depth: int) -> list[str]:
    return [*(f"W{i + 1}" for i in range(depth)), "V"]


def values(a, b, c) -> dict[str, Fraction]:
    out = {}
    for w, *abc in zip(names(len(a) - 1), a, b, c, strict=True):
        out |= {symbol(letter, w): Fraction(x) for letter, x in zip("abc", abc, strict=True)}
    return out


def assert_theorem(count: int, seed: int, activation: str, optimizer: str = "sgd"):
    """Assert that no verdict and no r disagrees on so many random parametrizations, and that all verdicts occur."""
    rng = random.Random(seed)
    which = "sgd" if optimizer == "sgd" else "sign"
    theorem = getattr(theorems, which)
    seen = Counter()
    for _ in range(count):
        depth = rng.randint(1, 4)
        a, b, c = theorems.sample(rng, depth, which)
        if which == "sign" and not theorems.faithful(b, c):
            continue
        found, told = classified(training(depth, activation, optimizer), values(a, b, c)), theorem(a, b, c)
        seen[told.verdict] += 1
        mine = (found.verdict, found.stable, found.nontrivial, found.feature_learning)
        where = f"a={a} b={b} c={c}: {told}, found {mine} r={found.r} {found.first_blowup}"
        assert mine == (told.verdict, told.stable, told.nontrivial, told.feature_learning), where
        if told.stable:
            assert found.r == told.r, where
    assert len(seen) == 4 and min(seen.values()) > count / 50, seen


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_dynamical_dichotomy(activation):
    assert_theorem(500, 1, activation)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_dynamical_dichotomy_ten_thousand_times(activation):
    assert_theorem(10_000, 2, activation)


@pytest.mark.parametrize("optimizer, activation", [("signsgd", "tanh"), ("adam", "gelu")])
def test_dichotomy_of_sign_like_optimizers(optimizer, activation):
    assert_theorem(300, 3, activation, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer, activation", [("signsgd", "tanh"), ("adam", "gelu")])
def test_dichotomy_of_sign_like_optimizers_often(optimizer, activation):
    assert_theorem(5_000, 4, activation, optimizer)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_exponents_of_the_changes(steps):
    """Proposition 5.3 of Tensor Programs IV on stable parametrizations: every layer's change, at every step."""
    rng = random.Random(5 + steps)
    checked = 0
    while checked < 150:
        depth = rng.randint(1, 4)
        a, b, c = theorems.sample(rng, depth, "sgd")
        if not theorems.sgd(a, b, c).stable:
            continue
        run = training(depth, "tanh", "sgd")
        scaling = Scaling(run.program, values(a, b, c))
        for label, e in theorems.sgd_exponents(a, b, c, steps).items():
            (entry,) = run.find("increment", label[1:], steps)
            # what is far smaller than another part of the change is not kept
            assert scaling.exponent(entry.name) == e, (a, b, c, label)
        checked += 1


# ------------------------------------------------------------------------------------------- published cases


def cases(kind: str):
    return [pytest.param(x["inputs"], x["exact"], id=x["id"]) for x in KNOWN if x["kind"] == kind]


def layers(inputs):
    depth = len(inputs["a"]) - 1
    c = inputs["c"]
    rows = inputs["a"], inputs["b"], c if isinstance(c, list) else [c] * (depth + 1)
    return [[Fraction(x) for x in row] for row in rows]


@pytest.mark.parametrize("inputs, exact", cases("classify"))
def test_published_regimes(inputs, exact):
    a, b, c = layers(inputs)
    found = classified(training(len(a) - 1, "tanh", inputs["optimizer"]), values(a, b, c))
    assert (found.stable, found.nontrivial) == (exact["stable"], exact["nontrivial"])
    assert found.verdict == exact["regime"].replace(" ", "_")
    if found.stable and exact["r"] is not None:
        assert found.r == Fraction(exact["r"])
    json.dumps(found.to_json())


@pytest.mark.parametrize("inputs, exact", cases("exponents"))
def test_published_exponents(inputs, exact):
    a, b, c = layers(inputs)
    run = unroll(network(inputs), inputs["optimizer"], steps=inputs["steps"])
    scaling = Scaling(run.program, values(a, b, c))
    found = {label: scaling.exponent(run.find("increment", label[1:], inputs["steps"])[0].name) for label in exact}
    assert found == {label: Fraction(e) for label, e in exact.items()}


def network(inputs):
    if not inputs.get("zero_readout"):
        return tp.nets.mlp(len(inputs["a"]) - 1, activation=inputs.get("activation", "tanh"))
    p = tp.Program(loss="squared")
    n = p.dim("n")
    x = p.data("xi", p.dim("d_in", 3))
    for k in (1, 2):
        h = p.let(f"h{k}", p.param(f"W{k}", n, x.type.dim) @ x)
        x = p.let(f"x{k}", tp.tanh(h))
    p.output(p.let("f", p.param("V", p.dim("d_out", 1), n, init="zero") @ x))
    return p.freeze()


def test_standard_parametrization_under_adam_is_unstable():
    # Remark 2.2.7 of Tensor Programs IVb says stable, its Theorem 2.8.12 says not; the measured slope of Df is 0.47
    table = {"W1": {"a": 0, "b": 0, "c": 1}, "*": {"a": 0, "b": "1/2", "c": 1}}
    for optimizer in ("adam", "signsgd"):
        found = classify(tp.nets.mlp(2), table, optimizer=optimizer)
        assert found.verdict == "unstable" and found.first_blowup == ("f", 1, Fraction(1, 2))
        slow = {"W1": {"a": 0, "b": 0, "c": "3/2"}, "*": {"a": 0, "b": "1/2", "c": "3/2"}}
        again = classify(tp.nets.mlp(2), slow, optimizer=optimizer)
        assert again.verdict == "kernel" and again.r == Fraction(1, 2)


def test_a_linear_network_escapes_the_dichotomy():
    # one hidden layer, only the first trained: features move although the regime is that of a kernel
    from tensorprog.scaling.derive import prepared

    net = prepared(tp.nets.mlp(1, activation="identity"), freeze=("V",))
    assert classify(net, "mup", optimizer="sgd").feature_learning


def test_a_blowup_is_named_where_it_begins():
    found = classify(tp.nets.mlp(2), "sp", optimizer="sgd")
    assert found.verdict == "unstable" and found.first_blowup == ("h2", 1, Fraction(1, 2))
    assert "first broken: h2 at step 1 is √n" in str(found)
    assert "h2" in found.explain()
    small = {"W1": {"a": 0, "b": "1/2", "c": 1}, "*": {"a": 0, "b": "1/2", "c": 1}}
    vanishing = classify(tp.nets.mlp(2), small, optimizer="sgd")
    assert vanishing.first_blowup == ("h1", 0, Fraction(-1, 2)) and "it should be 1" in str(vanishing)


def test_bad_tables_are_refused():
    net = tp.nets.mlp(1)
    with pytest.raises(ParseError, match="no entry"):
        classify(net, {"W1": {"a": 0, "b": 0, "c": 0}})
    with pytest.raises(ParseError, match="no such weight"):
        classify(net, {"W9": {"a": 0, "b": 0, "c": 0}, "*": {"a": 0, "b": 0, "c": 0}})
    with pytest.raises(ParseError, match="rational"):
        classify(net, {"*": {"a": "x", "b": 0, "c": 0}})
    with pytest.raises(ParseError, match="mop"):
        classify(net, "mop")
    with pytest.raises(NotCoveredError):
        classify(tp.nets.mlp(2), "mfp", optimizer="sgd")
