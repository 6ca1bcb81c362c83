"""Published parametrizations: the tables, their symmetry, their regimes, and planted errors."""

import json
import pickle
from fractions import Fraction
from pathlib import Path

import pytest

from tensorprog.atoms import parametrizations as folder
from tensorprog.atoms.abc import ABC, ROLES, Regime, regime
from tensorprog.atoms.optimizers import optimizer
from tensorprog.atoms.parametrizations import parametrization, parametrizations
from tensorprog.errors import NotCoveredError, ParseError, RecordError

HALF = Fraction(1, 2)
ONE, ZERO = Fraction(1), Fraction(0)
PAIRS = [(p, family) for p in parametrizations() for family in p.claims]


def rows(record: ABC, family: str) -> dict[str, tuple]:
    words = ("input", "output") if record.depth == 1 else ROLES
    return {word: record.triple(*ROLES[word], family) for word in words}


def test_every_file_holds_the_record_of_its_name():
    names = {p.stem for p in Path(folder.__file__).parent.glob("*.py")} - {"__init__"}
    assert names == {p.name for p in parametrizations()}


@pytest.mark.parametrize("record, family", PAIRS, ids=str)
def test_exponents_are_exact_and_the_regime_is_the_claimed_one(record, family):
    for triple in rows(record, family).values():
        assert all(isinstance(x, Fraction) for x in triple)
    assert record.regime(family) == record.claims[family]
    for depth in (2, 3, 7) if record.depth is None else (1,):
        assert regime(rows(record, family), family, depth) == record.claims[family]
    assert pickle.loads(pickle.dumps(record)) == record


@pytest.mark.parametrize("record, family", PAIRS, ids=str)
def test_the_regime_is_invariant_under_the_symmetry(record, family):
    k = {"sgd": 2, "sign": 1}[family]
    for theta in (Fraction(1, 3), Fraction(-2)):
        shifted = {w: (a + theta, b - theta, c - k * theta) for w, (a, b, c) in rows(record, family).items()}
        assert regime(shifted, family, record.depth or 2) == record.claims[family]


def test_verdicts():
    assert parametrization("mup").regime("adam").verdict == "feature_learning"
    assert parametrization("ntp").regime("sgd").verdict == "kernel"
    assert parametrization("mfp").regime("momentum").verdict == "feature_learning"
    sp = parametrization("sp")
    assert sp.regime("sgd").verdict == sp.regime("adam").verdict == "unstable"
    assert sp.with_lr(1).regime("sgd") == Regime(True, True, HALF)
    # Tensor Programs IVb, Theorem 2.8.12 (not Remark 2.2.7): features move at rate 1/n, but the output blows up.
    assert sp.with_lr(1).regime("adam") == Regime(False, False, ZERO)
    assert sp.with_lr("3/2").regime("signsgd").verdict == "kernel"
    assert sp.with_lr(2).with_lr(-1) == sp.with_lr(1)
    assert sp.with_lr(3).regime("sgd").verdict == "trivial"


def test_uniform_family_interpolates_from_mup_to_ntp():
    for s in (ZERO, Fraction(1, 4), HALF):
        table = {"input": (s - HALF, HALF - s, ZERO), "hidden": (s, HALF - s, ZERO), "output": (HALF, HALF - s, ZERO)}
        assert regime(table, "sgd", 2) == Regime(True, True, s)


def test_mup_of_unequal_widths_follows_the_spectral_condition():
    for fan_in, fan_out in ((ONE, HALF), (HALF, ONE), (ONE, ONE), (Fraction(2), ONE)):
        for family in ("sgd", "sign"):
            a, b, c = parametrization("mup").triple(fan_in, fan_out, family)
            assert a + b == fan_in / 2 + max(ZERO, (fan_in - fan_out) / 2)
            update = 2 * a + c if family == "sgd" else a + c
            assert update == (fan_in - fan_out if family == "sgd" else fan_in)


def test_assignment_goes_by_rows_and_columns():
    table = parametrization("mup").assign({"V": (ZERO, ONE), "b": (ONE, ZERO)}, optimizer("adam"))
    assert table == {"V": (1, 0, 0), "b": (0, 0, 0)}
    assert parametrization("mup").multipliers == {}


def test_what_is_not_defined_is_not_covered():
    with pytest.raises(NotCoveredError, match="mfp is not defined for hidden weights"):
        parametrization("mfp").assign({"W": (ONE, ONE)}, "sgd")
    with pytest.raises(NotCoveredError, match="mfp is not defined for optimizers like adam"):
        parametrization("mfp").triple(ZERO, ONE, "adam")
    with pytest.raises(ParseError, match=r"no such parametrization(.|\n)*mup"):
        parametrization("mupp")
    with pytest.raises(ParseError, match="no such optimizer"):
        parametrization("mup").triple(ZERO, ONE, "adm")


MUP = {"input": (-HALF, HALF, 0), "hidden": (0, HALF, 0), "output": (HALF, HALF, 0)}


@pytest.mark.parametrize("wrong, message", [
    ({"sources": ()}, "no source"),
    ({"table": {"sgd": MUP | {"hidden": (0, HALF, 1)}}}, r"disagrees with the table \(sgd, hidden\)"),
    ({"sgd": lambda i, o: (i / 2, 0, 0)}, "disagrees with the table"),
    ({"sgd": lambda i, o: (i / 2, 0, 0), "table": {}}, r"inequalities for sgd give Regime(.|\n)*kernel"),
    ({"claims": {"sgd": Regime(True, True, HALF)}}, "inequalities for sgd give"),
    ({"claims": {}}, "inequalities for sgd give"),
])
def test_planted_errors_are_refused(wrong, message):
    good = {"name": "planted", "sgd": lambda i, o: ((i - o) / 2, max(i, o) / 2, 0), "sign": None,
            "table": {"sgd": MUP}, "claims": {"sgd": Regime(True, True, ZERO)}, "sources": ("yang2021feature",)}
    assert ABC(**good).regime("sgd").verdict == "feature_learning"
    with pytest.raises(RecordError, match=f"parametrization 'planted'(.|\n)*{message}"):
        ABC(**good | wrong)


# ----------------------------------------------------------------------------------------------- abc files

WEIGHTS = {"W1": (ONE, ZERO), "W2": (ONE, ONE), "V": (ZERO, ONE)}


def test_abc_files_name_weights_and_multipliers():
    text = '{"W1": {"a": "0", "b": 0.5, "c": 1}, "*": {"a": "-1/2", "b": "0.1", "c": 0.1}, "alpha": "1/2"}'
    found = ABC.from_json(json.loads(text))
    table = found.assign(WEIGHTS, "sgd")
    assert table["W1"] == (0, HALF, 1)
    assert table["W2"] == table["V"] == (-HALF, Fraction(1, 10), Fraction(1, 10))
    assert found.multipliers == {"alpha": HALF}


ROW = {"a": "0", "b": "0", "c": "0"}


@pytest.mark.parametrize("mapping, message", [
    ({"W9": ROW, "*": ROW}, r"abc file: W9: the network has no such weight(.|\n)*W1, W2, V"),
    ({"W1": ROW, "V": ROW}, r"no entry \(got 'W2'\)"),
    ({"*": {"a": "0", "b": "0"}}, "c is missing"),
    ({"*": ROW | {"d": "0"}}, "not one of a, b, c"),
    ({"*": ROW | {"a": "half"}}, r"abc file: \*\.a: not a rational number \(got 'half'\)"),
    ({"*": ROW | {"a": "1/0"}}, "not a rational"),
    ({"*": ROW | {"a": True}}, "not a rational"),
    ({"*": ROW | {"a": None}}, "not a rational"),
    ({"*": ROW | {"a": float("nan")}}, "not a rational"),
    ({"*": ROW | {"a": float("inf")}}, "not a rational"),
    ({"*": [0, 0, 0]}, "not a rational number"),
    ([ROW], "not an object of weights"),
])
def test_abc_files_that_are_refused(mapping, message):
    with pytest.raises(ParseError, match=message):
        ABC.from_json(mapping).assign(WEIGHTS, "sgd")
