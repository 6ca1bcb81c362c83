"""derive on requests of every kind: given, frozen, reused, zero and unsolvable; explain; networks of other makes."""

import json
from fractions import Fraction

import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ParseError, TensorProgError, UnsolvableError
from tensorprog.interp.scaling import Scaling
from tensorprog.interp.unroll import symbol, unroll
from tensorprog.program.text import parse
from tensorprog.scaling.derive import first_blowup

from . import own

HALF = Fraction(1, 2)

MLP = """
dim n
dim d = 3
param W1 : n x d {W1}
param W2 : n x n {W2}
param V : 1 x n {V}
input xi : d
h = tanh(W2 @ tanh(W1 @ xi))
f = V @ h
output f
"""


def mlp(**given):
    return parse(MLP.format(**{k: f"[{given[k]}]" if k in given else "" for k in ("W1", "W2", "V")}))


def exponents(derived):
    return {k: (w.a, w.b, w.c) for k, w in derived.weights.items()}


# -------------------------------------------------------------------------------------------- given exponents


@pytest.mark.parametrize("given, weight, found", [
    ({"W2": "a=1/2"}, "W2", (HALF, 0, -1)),  # NTP's multiplier: b and c make up for it
    ({"W2": "a=1/2, b=0"}, "W2", (HALF, 0, -1)),
    ({"W1": "a=-1/2, b=1/2"}, "W1", (-HALF, HALF, 0)),
    ({"V": "a=1/2"}, "V", (HALF, HALF, 0)),
    ({"V": "a=1, b=0"}, "V", (1, 0, -1)),
])
def test_what_is_given_is_kept_and_the_rest_solved(given, weight, found):
    derived = tp.derive(mlp(**given), "sgd", form="table3")
    assert exponents(derived)[weight] == found
    others = {k: v for k, v in exponents(tp.derive(mlp(), "sgd", form="table3")).items() if k != weight}
    assert {k: v for k, v in exponents(derived).items() if k != weight} == others


def test_all_given_is_checked():
    derived = tp.derive(mlp(W1="a=0, b=0, c=-1", W2="a=0, b=1/2, c=0", V="a=0, b=1, c=1"), "sgd")
    assert exponents(derived) == {"W1": (0, 0, -1), "W2": (0, HALF, 0), "V": (0, 1, 1)}
    assert all(v.first_learns == 1 for v in derived.learning.values())


@pytest.mark.parametrize("given", [{"W2": "a=0, b=0"}, {"W2": "a=0, b=1/4"}, {"W2": "a=0, c=-1"}, {"V": "a=0, b=0"},
                                   {"W1": "a=0, b=-1/2"}])
def test_conflicting_requests_have_no_solution(given):
    """Too large an initialization or learning rate of one weight: nothing the others do stabilizes it."""
    with pytest.raises(UnsolvableError, match=r"grows with n") as error:
        tp.derive(mlp(**given), "sgd")
    assert "@" in error.value.line and "free the exponents" in error.value.fix


# ------------------------------------------------------------------------------------------------- freezing


def test_frozen_weights_have_no_learning_rate():
    derived = tp.derive(tp.nets.mlp(3), "adam", freeze=("W1", "V"), form="table3")
    assert derived.weights["W1"].c is None and derived.weights["V"].c is None
    assert exponents(derived)["W2"] == (0, HALF, 1)
    data = derived.to_json()["parameters"]
    assert data["V"]["lr"] is None and data["V"]["first_learns"] is None
    json.dumps(derived.to_json())


def test_where_alignment_is_never_attained_the_learning_rate_is_larger():
    """Only the gate of a mixture is trained: its gradient is a sum of uncorrelated terms at every step."""
    net = parse(own.text("mixture"))
    derived = tp.derive(net, "sgd", form="table3", freeze=("W1", "A", "B", "V"))
    assert derived.weights["g"].c == HALF and derived.learning["g"].first_learns == 1
    everything = tp.derive(net, "sgd", form="table3")
    assert everything.weights["g"].c == 1 and everything.learning["g"].first_learns == 2


def test_what_starts_small_keeps_its_slack():
    """Squared logits n^(-1/2) grow by themselves, in log n steps: the learning rate may not wait for that."""
    derived = tp.derive(parse(own.text("squared_attention")), "sgd", form="table3")
    assert derived.weights["O"].c == 0


# --------------------------------------------------------------------------------------- multipliers and forms


def test_unknown_multipliers_are_solved_for():
    net = parse("""
        dim n
        dim d = 3
        exponent alpha
        exponent beta
        param W1 : n x d
        param W2 : n x n
        param V : 1 x n
        input xi : d
        x = tanh(W1 @ xi)
        s = n^-alpha * sum(x * (W2 @ x))
        y = tanh(s*x)
        f = n^-beta * sum((W2.T @ y) * x) + V @ y
        output f
    """.replace("        ", ""))
    derived = tp.derive(net, "adam")
    assert derived.multipliers == {"alpha": Fraction(1), "beta": Fraction(1)}
    assert "alpha = 1" in derived.explain("alpha") and "law of large numbers" in derived.explain("alpha").lower()
    assert derived.to_json()["multipliers"] == {"alpha": "1", "beta": "1"}


def test_tied_embeddings():
    """A weight that is embedding and readout at once: variance 1 and a multiplier 1/n (Tensor Programs V, Table 8)."""
    for optimizer, c in (("sgd", -1), ("adam", 0)):
        derived = tp.derive(parse(own.text("tied_readout")), optimizer, form="table8")
        assert exponents(derived)["E"] == (0, 0, c) and derived.multipliers == {"alpha": Fraction(1)}
        assert derived.learning["E"].first_learns == 1


def test_reused_weights_are_scaled_as_if_used_once():
    for optimizer in ("sgd", "adam"):
        found = exponents(tp.derive(parse(own.text("rnn")), optimizer, form="table3"))
        plain = exponents(tp.derive(tp.nets.mlp(2), optimizer, form="table3"))
        assert found == {"U": plain["W1"], "W": plain["W2"], "V": plain["V"]}


def test_zero_readout():
    derived = tp.derive(parse(own.text("zero_readout")), "sgd", form="table3")
    assert derived.weights["V"].init == "zero" and derived.weights["V"].c == 1
    assert {k: v.first_learns for k, v in derived.learning.items()} == {"W1": 2, "W2": 2, "V": 1}
    assert derived.to_json()["parameters"]["V"]["init_std"] == "-inf"
    assert "starts at 0" in derived.explain("V")


def test_biases_and_gains_are_like_inputs():
    for optimizer, c in (("sgd", -1), ("adam", 0)):
        derived = tp.derive(tp.nets.resnet(1, normalize="layernorm", bias=True), optimizer, form="table8")
        vectors = [w for w in derived.weights.values() if w.role in ("bias", "gain")]
        kinds = {(w.a, w.c, w.kind, w.position) for w in vectors}
        assert len(vectors) == 6 and kinds == {(0, c, "vector-like", "input")}


def test_several_outputs_and_a_mean_field_output():
    derived = tp.derive(parse(own.text("two_outputs")), "sgd", form="table3")
    assert exponents(derived)["V"] == exponents(derived)["S"] == (0, 1, 1)
    mean_field = tp.derive(parse(own.text("mean_field_output")), "sgd", form="table3")
    assert exponents(mean_field)["v"] == (0, 0, -1)


# ----------------------------------------------------------------------------------------------- refusals


def test_wrong_names_are_refused():
    net = tp.nets.mlp(2)
    for options, match in (({"freeze": ("W9",)}, "W1"), ({"regime": {"m": "1/2"}}, "no such dimension"),
                           ({"regime": {"n": "half"}}, "rational"), ({"form": "table7"}, "table3"),
                           ({"optimizer": "sdg"}, "sgd")):
        with pytest.raises(ParseError, match=match):
            tp.derive(net, **options)
    with pytest.raises(ParseError, match="no weight, role or multiplier"):
        tp.derive(net).explain("W22")


def test_an_output_that_cannot_be_normalized_is_refused():
    net = parse("dim n\ndim d = 3\nparam W : n x d\ninput xi : d\nx = W @ xi\nf = sum(x*x)\noutput f\n")
    with pytest.raises(TensorProgError, match="grows with n"):
        tp.derive(net, "sgd")


def test_a_transformer_whose_axes_both_grow_is_not_covered():
    with pytest.raises(NotCoveredError):
        tp.nets.transformer(1, regime={"heads": "1/2", "d_head": "1/2"})


# ------------------------------------------------------------------------------------------------ explain

ARCHITECTURES = {
    "mlp": lambda: tp.nets.mlp(2, bias=True),
    "resnet": lambda: tp.nets.resnet(1, block=2, normalize="layernorm"),
    "transformer": lambda: tp.nets.transformer(1, bias=True),
    "many_heads": lambda: tp.nets.transformer(1, regime={"heads": 1}),
    **{name: lambda name=name: parse(own.text(name)) for name in ("gated", "rnn", "bottleneck", "mixer_norm")},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_number_has_its_reason(name, optimizer):
    net = ARCHITECTURES[name]()
    derived = tp.derive(net, optimizer)
    steps = unroll(net, optimizer, steps=3).program
    for w in net.params:
        told = derived.explain(w.out)
        for letter in "bc":
            eq = derived.equations.get(symbol(letter, w.out))
            if letter == "b" and w.param.init != "normal":
                assert eq is None
                continue
            # the line of the training program, which says the step, and the law
            out = eq.line.split(" = ")[0]
            assert f"`{eq.line}`" in told and out in steps and "@" in out
            assert {"LLN": "Law of large", "CLT": "Central limit", "sum": "A sum over a fixed axis"}[eq.law] in told
            assert sum((e for _, e in eq.terms), Fraction(0)) == eq.value, "the sizes named add to the exponent"
        assert "step" in told or "at most" in told
        assert all(part in derived.to_json()["parameters"][w.out]["reason"] for part in ("lr: ", "must be 1"))
    assert f"{net.params[0].out}" in str(derived) and derived._repr_html_().startswith("<table>")


def test_a_role_explains_its_weights():
    derived = tp.derive(tp.nets.mlp(3))
    assert derived.explain("hidden").startswith("W2 (hidden") and "W3" in derived.explain("hidden")


# ----------------------------------------------------------------------------------- networks of other makes


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", own.NETWORKS)
def test_what_is_derived_is_stable_and_learns(name, optimizer):
    net = parse(own.text(name))
    derived = tp.derive(net, optimizer)
    long = unroll(net, optimizer, steps=6)
    assert first_blowup(long, Scaling(long.program, derived.values)) is None
    found = tp.classify(net, derived, optimizer=optimizer)
    assert found.feature_learning
    waiting = {("squared_attention", "sgd"): {"Q", "K", "O"}, ("bottleneck", "sgd"): {"D1", "D2", "U1", "U2"}}
    never = {k for k, v in derived.learning.items() if v.first_learns is None}
    assert never == waiting.get((name, optimizer), set())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["gated", "tied_transpose", "rnn", "highway"])
def test_a_larger_learning_rate_of_any_weight_is_unstable_or_changes_nothing(name, optimizer):
    """Maximality: n^(1/4) more for one weight and something grows, unless that weight is not the limit."""
    net = parse(own.text(name))
    values = tp.derive(net, optimizer).values
    run = unroll(net, optimizer, steps=3)
    for w in net.params:
        faster = dict(values)
        faster[symbol("c", w.out)] -= Fraction(1, 4)
        assert first_blowup(run, Scaling(run.program, faster)) is not None, w.out


GIVEN = """
dim n
dim d = 3
param W1 : n x d {W1}
param W2 : n x n {W2}
param V : 1 x n {V}
input xi : d
f = V @ tanh(W2 @ tanh(W1 @ xi))
output f
"""


@pytest.mark.parametrize("optimizer, weight, given, expected", [
    ("sgd", "W2", "[b=0]", ("1/2", "0", "-1")),
    ("adam", "W2", "[b=0]", ("1/2", "0", "1/2")),
    ("sgd", "W1", "[c=0]", ("-1/2", "1/2", "0")),
    ("sgd", "V", "[b=1/2, c=0]", ("1/2", "1/2", "0")),
    ("adam", "V", "[b=1/2]", ("1/2", "1/2", "1/2")),
    ("adam", "V", "[a=1]", ("1", "0", "0")),
])
def test_a_given_b_or_c_is_a_gauge(optimizer, weight, given, expected):
    text = GIVEN.format(**{name: given if name == weight else "" for name in ("W1", "W2", "V")})
    d = tp.derive(tp.parse(text), optimizer, form="table3")
    w = d.weights[weight]
    assert (w.a, w.b, w.c) == tuple(map(Fraction, expected))
    plain = tp.derive(tp.parse(GIVEN.format(W1="", W2="", V="")), optimizer, form="table3")
    assert {k: v.update for k, v in d.learning.items()} == {k: v.update for k, v in plain.learning.items()}
