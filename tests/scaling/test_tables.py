"""derive against published tables: Tensor Programs V (3, 8, 9), the spectral condition, epsilon and weight decay."""

import json
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path

import pytest

import tensorprog as tp
from tensorprog.program.text import parse
from tensorprog.scaling.table import FORMS

KNOWN = {x["id"]: x for x in json.loads((Path(__file__).parents[1] / "known_answers" / "scalings.json").read_text())}
HALF = Fraction(1, 2)

#: What the entries of the printed tables are as powers of n, by the axis of the weight that grows.
PRINTED = {
    "1": 0, "1/fan_in": "-in", "1/fan_in^2": "-2in", "fan_out": "out", "fan_in": "in", "1/fan_out": "-out",
    "sqrt(fan_out)": "out/2", "1/sqrt(fan_in)": "-in/2", "1/sqrt(fan_out)": "-out/2",
}

NETWORKS = {
    "mlp": lambda: tp.nets.mlp(3, bias=True),
    "resnet1": lambda: tp.nets.resnet(2, bias=True),
    "resnet2": lambda: tp.nets.resnet(2, block=2, bias=True),
    "resnet1_layernorm": lambda: tp.nets.resnet(2, normalize="layernorm"),
    "resnet2_rmsnorm": lambda: tp.nets.resnet(2, block=2, normalize="rmsnorm"),
    "transformer": lambda: tp.nets.transformer(1, bias=True),
    "transformer_many_heads": lambda: tp.nets.transformer(1, bias=True, regime={"heads": 1, "d_head": 0}),
}


def power(printed: str, fan_in: Fraction, fan_out: Fraction) -> Fraction:
    """Return the power of n that an entry of a table is."""
    text = PRINTED[printed]
    if text == 0:
        return Fraction(0)
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("-")
    times = 2 if text.startswith("2") else 1
    growth = fan_in if "in" in text else fan_out
    return sign * times * growth / (2 if text.endswith("/2") else 1)


def row_of(w) -> str:
    return "hidden" if w.rows.growth and w.cols.growth else "output" if w.cols.growth else "input&bias"


COLUMN = {"sgd": "SGD_lr", "momentum": "SGD_lr", "adam": "Adam_lr", "signsgd": "Adam_lr", "adamw": "Adam_lr"}


@cache
def derived_for(name: str, optimizer: str):
    return tp.derive(NETWORKS[name](), optimizer)


@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
@pytest.mark.parametrize("name, optimizer", [*product(NETWORKS, ("sgd", "adam")), ("resnet2", "momentum"),
                                             ("mlp", "signsgd"), ("transformer", "adamw")])
def test_published_table(name, optimizer, form):
    table, column = KNOWN[f"A.tp5.{form}"]["exact"], COLUMN[optimizer]
    derived = derived_for(name, optimizer).in_form(form)
    for w in derived.weights.values():
        fans, row = (w.cols.growth, w.rows.growth), row_of(w)
        assert -w.a == power(table.get("multiplier", {}).get(row, "1"), *fans), w
        assert -w.c == power(table[column][row], *fans), w
        if w.init == "normal":
            assert -2 * w.b == power(table["init_var"][row], *fans), w
        elif w.init == "one":
            assert w.a + w.b == 0, "a gain starts at 1 in every form"
    assert all(v.first_learns is not None for v in derived.learning.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_one_learning_rate_for_all_under_sgd(name):
    """Tensor Programs IV: a = (-1/2, 0, 1/2), b = 1/2, c = 0."""
    for w in derived_for(name, "sgd").in_form("global").weights.values():
        a = {"input&bias": -HALF, "hidden": Fraction(0), "output": HALF}[row_of(w)]
        assert (w.a, w.c) == (a, 0) and (w.b == HALF or w.init == "zero")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_forms_differ_by_the_gauge_only(optimizer):
    gauge = KNOWN["A.tp5.lemmaJ1"]["exact"][optimizer]
    base = tp.derive(tp.nets.transformer(1), optimizer, form="table3")
    for form in FORMS:
        other = base.in_form(form)
        assert other.in_form("table3").weights == base.weights and other.in_form(form).weights == other.weights
        for name, w in other.weights.items():
            v = base.weights[name]
            theta = w.a - v.a
            assert (w.b - v.b, w.c - v.c) == tuple(theta * Fraction(g) for g in gauge[1:])
            assert w.eps is v.eps is None or w.eps - v.eps == theta * Fraction(KNOWN["A.tp5.lemmaJ1"]["exact"]["eps"])


@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
def test_epsilon_scales_like_the_gradient(form):
    """The published measurement names the layers W1, b1, W2, b2, W3."""
    exact = KNOWN[f"A.adam.eps.T{form[-1]}"]["exact"]
    derived = tp.derive(tp.nets.mlp(2, bias=True), "adam", form=form)
    rename = {"W1": "W1", "b1": "W1_b", "W2": "W2", "b2": "W2_b", "W3": "V"}
    assert {k: str(-derived.weights[v].eps) for k, v in rename.items()} == exact
    assert derived.to_json()["parameters"]["W2"]["eps"] == exact["W2"]


def test_only_adaptive_optimizers_have_an_epsilon():
    for optimizer in ("sgd", "momentum", "signsgd"):
        assert all(w.eps is None for w in tp.derive(tp.nets.mlp(2), optimizer).weights.values())


def test_decoupled_decay_needs_no_scaling_and_a_coupled_one_undoes_the_learning_rate():
    exact = KNOWN["A.wd"]["exact"]
    for w in tp.derive(tp.nets.mlp(2), "adamw", form="table3").weights.values():
        assert w.wd == 0
        # in a library that multiplies the decay by the learning rate, lambda grows like n^(c - wd)
        assert w.c - w.wd == Fraction(exact["output" if w.name == "V" else "input" if w.name == "W1" else "hidden"])
    assert all(w.wd is None for w in tp.derive(tp.nets.mlp(2), "adam").weights.values())


# ---------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_logits_are_divided_by_the_head_dimension(optimizer):
    assert tp.derive(tp.nets.transformer(1), optimizer).multipliers == {"alpha": Fraction(1)}
    many = tp.derive(tp.nets.transformer(1, regime={"heads": 1, "d_head": 0}), optimizer)
    assert many.multipliers == {"alpha": None} and many.to_json()["free"] == ["alpha"]
    assert "free" in many.explain("alpha")


@pytest.mark.parametrize("optimizer, eps, step", [("sgd", None, 2), ("adam", None, 1), ("adam", Fraction(1, 100), 2)])
def test_queries_and_keys_learn_late(optimizer, eps, step):
    """At step 1 the output's gradient and the values are uncorrelated: the logits' gradient is n^(-1/2) smaller.

    Adam does not see how large a gradient is, unless it has an epsilon.
    """
    derived = tp.derive(tp.nets.transformer(1), optimizer, eps=eps)
    for name, v in derived.learning.items():
        late = step == 2 and name.split("_")[-1][0] in "qk"
        assert v.first_learns == (2 if late else 1), name
        assert v.update[1] == (-HALF if late else 0), name
    assert ("at step 1 only 1/√n" in derived.explain("b1_q1")) == (step == 2)


def test_aligned_and_independent_logits():
    from tensorprog.interp.scaling import Scaling

    exact = KNOWN["A.attn.1overd"]["exact"]
    p = tp.Program()
    n = p.dim("n")
    q, k = p.vector("q", n), p.vector("k", n)
    names = {"independent": p.let("i", p.sum(q * k)).name, "aligned": p.let("l", p.sum(q * q)).name}
    s = Scaling(p)
    powers = [Fraction(e) for e in KNOWN["A.attn.1overd"]["inputs"]["exponents"]]
    for kind, name in names.items():
        assert [str(s.exponent(name) - e) for e in powers] == exact[kind]


# -------------------------------------------------------------------------------------- rectangular networks


def rectangular(*growths, activation="tanh"):
    """Return an MLP whose hidden layers have these growths; the first and last are those of n."""
    lines = ["dim n", "dim d = 3", *(f"dim m{i} ~ n^({g})" for i, g in enumerate(growths))]
    axes = ["d", *("n" if g == "1" else f"m{i}" for i, g in enumerate(growths))]
    lines = [line for i, line in enumerate(lines) if i < 2 or growths[i - 2] != "1"]
    body = ["input xi : d"]
    x = "xi"
    for i in range(1, len(axes)):
        lines.append(f"param W{i} : {axes[i]} x {axes[i - 1]}")
        body.append(f"x{i} = {activation}(W{i} @ {x})")
        x = f"x{i}"
    return parse("\n".join([*lines, f"param V : 1 x {axes[-1]}", *body, f"f = V @ {x}", "output f"]))


@pytest.mark.parametrize("growths", [("1", "1/2", "1"), ("1", "3/2", "1"), ("1", "1/2", "1/4", "1"),
                                     ("1", "2", "1/2", "1"), ("1", "1/2", "1/2", "3/2"), ("1", "1/3"), ("1", "3/2")])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_spectral_condition(growths, optimizer):
    """sigma = min(1, sqrt(out/in))/sqrt(in); learning rates out/in (SGD) and 1/in (Adam)."""
    assert KNOWN["A.spectral"]["exact"] == {
        "init_std": "min(1, sqrt(out/in))/sqrt(in)", "sgd_lr": "out/in", "adam_lr": "1/in"}
    derived = tp.derive(rectangular(*growths), optimizer, form="table3")
    for w in derived.weights.values():
        out, fan_in = w.rows.growth, w.cols.growth
        assert -w.b == min(Fraction(0), (out - fan_in) / 2) - fan_in / 2, w
        assert -w.c == (out - fan_in if optimizer == "sgd" else -fan_in), w


@pytest.mark.parametrize("optimizer, verdict", [("adam", "feature_learning"), ("sgd", "trivial")])
def test_a_bottleneck_starts_small_and_is_not_broken(optimizer, verdict):
    """Under SGD its gradients are as small as it is: growing takes more steps than any fixed number."""
    net = rectangular("1", "1/2", "1")
    derived = tp.derive(net, optimizer)
    assert tp.classify(net, derived, optimizer=optimizer).verdict == verdict
    table = {w.name: {"a": str(w.a), "b": str(w.b), "c": str(w.c)} for w in derived.in_form("table3").weights.values()}
    small = {**table, "W2": {**table["W2"], "b": "7/8"}}
    found = tp.classify(net, small, optimizer=optimizer)
    assert found.verdict == "unstable" and found.first_blowup[1:] == (0, Fraction(-3, 8))


def test_fan_in_initialization_of_a_bottleneck_blows_up():
    fan_in = {"W1": {"a": 0, "b": 0, "c": 0}, "W2": {"a": 0, "b": "1/2", "c": 1},
              "W3": {"a": 0, "b": "1/4", "c": "1/2"}, "V": {"a": 1, "b": 0, "c": 0}}
    found = tp.classify(rectangular("1", "1/2", "1"), fan_in, optimizer="adam")
    assert found.verdict == "unstable" and found.first_blowup[2] == Fraction(1, 4)


@pytest.mark.parametrize("growths", [("1", "1/2", "1/2", "3/2"), ("1", "2", "1/2", "1"), ("1", "1/2", "1")])
def test_what_is_derived_stays_stable_for_more_steps_than_it_was_derived_from(growths):
    from tensorprog.interp.scaling import Scaling
    from tensorprog.interp.unroll import unroll
    from tensorprog.scaling.derive import first_blowup

    net = rectangular(*growths)
    long = unroll(net, "sgd", steps=9)
    assert first_blowup(long, Scaling(long.program, tp.derive(net, "sgd").values)) is None
