"""Predicted exponents are confirmed, and every confirmation has a wrong twin that is refuted."""

import json
from fractions import Fraction

import pytest

from tensorprog.errors import RunError
from tensorprog.exponents.scale import Scale
from tensorprog.finite.confirm import Check, Confirmation, confirm_exponents, consecutive
from tensorprog.finite.fit import ExponentFit, Verdict
from tensorprog.program.dims import Dim

from .standins import Adam, Writer, mlp, mup, standard

ZERO, HALF = Fraction(0), Fraction(1, 2)


def laws():
    """A program whose exponents are known: LLN, CLT, a dot between W and W^T, an exact zero."""
    w = Writer()
    w.matrix("W")
    x, y = w.vector("x"), w.vector("y")
    h = w.fn("tanh", w.mul("W", x), out="h")
    w.moment(h, h, out="lln")
    w.moment(h, y, out="clt")
    back = w.mul("W", h, True, out="back")
    w.moment(back, x, out="dot")
    w.lin((1, h), (-1, h), out="none")
    w.lin((Scale.power("n", -HALF), back), (Scale.power("n", -1), x), out="small")
    return w.program


TRUE = {"h": ZERO, "lln": ZERO, "clt": -HALF, "dot": ZERO, "none": None, "small": -HALF}


def test_what_is_true_is_confirmed():
    c = confirm_exponents(laws(), TRUE, budget=20)
    assert c.verdict is Verdict.CONFIRMED, str(c)
    assert all(check.verdict is Verdict.CONFIRMED for check in c.checks), str(c)


@pytest.mark.parametrize("what, wrong", [
    ("h", HALF), ("lln", -HALF), ("clt", -1), ("dot", -HALF), ("none", 0), ("h", None), ("small", 0)])
def test_what_is_wrong_is_refuted(what, wrong):
    wrong = None if wrong is None else Fraction(wrong)
    c = confirm_exponents(laws(), {what: wrong}, seeds=400, widths=[1 << k for k in range(6, 14)])
    assert c.verdict is Verdict.REFUTED, str(c)


def test_training_under_mup_and_its_wrong_twin():
    program = mlp(depth=2, batch=2, steps=1)
    predicted = {"update": ZERO, "dh[1,V,0]": ZERO}
    groups = {"update": ["dh[1,W1,0]", "dh[1,W1,1]"]}
    widths = [1 << k for k in range(6, 13)]
    good = confirm_exponents(program, predicted, groups=groups, values=mup(2), widths=widths, seeds=16)
    assert good.verdict is Verdict.CONFIRMED, str(good)
    bad = confirm_exponents(program, predicted, groups=groups, values=standard(2), widths=widths, seeds=16)
    assert bad.verdict is Verdict.REFUTED, str(bad)


def test_what_is_undecided_gets_more_widths_and_seeds():
    w = Writer()
    x, y = w.vector("x"), w.vector("y")
    w.moment(x, y, out="clt")
    one = confirm_exponents(w.program, {"clt": -HALF}, budget=0)
    assert one.verdict is Verdict.INCONCLUSIVE
    more = confirm_exponents(w.program, {"clt": -HALF}, budget=30)
    assert more.verdict is Verdict.CONFIRMED, str(more)
    assert max(more.widths) > max(one.widths)
    assert more.seeds[0] > one.seeds[0]


def test_a_refutation_gets_a_second_round():
    w = Writer()
    w.vector("x")
    c = confirm_exponents(w.program, {"x": HALF}, budget=20)
    assert c.verdict is Verdict.REFUTED
    assert max(c.widths) == 1 << 15


def test_dense_updates_stop_at_smaller_widths():
    program = mlp(depth=2, batch=1, steps=1, rule=Adam(), data=3)
    c = confirm_exponents(program, {"dh[1,W1,0]": ZERO}, values=mup(2, adam=True), budget=0)
    assert c.widths == tuple(1 << k for k in range(4, 10)), "six widths whatever the budget, no wider ones without"


def test_files_and_rounds(tmp_path):
    w = Writer()
    w.moment(w.vector("x"), w.vector("y"), out="clt")
    path = tmp_path / "c.jsonl"
    first = confirm_exponents(w.program, {"clt": -HALF}, budget=5, path=path)
    assert path.read_text().count("\n") == 1 + sum(first.seeds)
    again = confirm_exponents(w.program, {"clt": -HALF}, budget=0, path=path)
    assert again.seconds < 2


def test_other_growths_have_other_orders():
    w = Writer(Dim("k", HALF))
    u, v = w.vector("u", Dim("k", HALF)), w.vector("v", Dim("k", HALF))
    w.moment(u, v, out="s")
    c = confirm_exponents(w.program, {"s": -HALF / 2}, seeds=1500, widths=[1 << k for k in range(6, 15)])
    assert c["s"].verdict is Verdict.CONFIRMED, str(c)


def test_orders_are_those_of_the_axes_a_variable_depends_on():
    w = Writer(Dim("k", HALF))
    x, u = w.vector("x"), w.vector("u", Dim("k", HALF))
    w.matrix("A", w.n, Dim("k", HALF))
    w.fn("tanh", x, out="wide")
    w.fn("tanh", w.mul("A", u), out="mixed")
    assert [consecutive(w.program, [v]) for v in ("wide", "mixed", "u")] == [HALF, HALF / 2, HALF / 2]
    assert consecutive(w.program, ["wide", "u"]) == HALF / 2


def test_seeds_may_be_given_for_every_width():
    seeds = {1 << k: 200 >> (k - 6) for k in range(6, 12)}
    c = confirm_exponents(laws(), {"h": ZERO}, seeds=seeds)
    assert dict(zip(c.widths, c.seeds, strict=True)) == seeds
    assert c.checks == confirm_exponents(laws(), {"h": ZERO}, seeds=seeds, widths=list(seeds)).checks


def test_unknown_names_are_refused():
    with pytest.raises(RunError, match="no vector or scalar of this name"):
        confirm_exponents(laws(), {"nothing": ZERO})


# ----------------------------------------------------------------------------------------------- the verdict


def check(verdict, what="x"):
    return Check(what, ZERO, ExponentFit(0.0, -0.1, 0.1, (-0.1, 0.1), (64,), (1.0,), (0.1,), "A n^e"), verdict, "why")


@pytest.mark.parametrize("counts, want", [
    ((10, 0, 0), Verdict.CONFIRMED), ((9, 1, 0), Verdict.CONFIRMED), ((8, 2, 0), Verdict.INCONCLUSIVE),
    ((99, 0, 1), Verdict.REFUTED), ((0, 0, 0), Verdict.INCONCLUSIVE)])
def test_nine_in_ten(counts, want):
    kinds = zip((Verdict.CONFIRMED, Verdict.INCONCLUSIVE, Verdict.REFUTED), counts, strict=True)
    assert Confirmation(tuple(check(v) for v, k in kinds for _ in range(k)), (), ()).verdict is want


def test_printing_and_json():
    c = Confirmation((check(Verdict.CONFIRMED), check(Verdict.REFUTED, "<y>")), (64, 128), (2, 2))
    assert "x     0          0.000     [-0.100, 0.100]  confirmed" in str(c)
    assert str(c).endswith("refuted (widths 64 to 128, 4 runs)")
    assert "&lt;y&gt;" in c._repr_html_()
    data = json.loads(json.dumps(c.to_json()))
    assert data["verdict"] == "refuted"
    assert data["checks"][0] == {"what": "x", "predicted": "0", "measured": 0.0, "low": -0.1, "high": 0.1,
                                 "verdict": "confirmed", "reason": "why"}
