"""Requests without an answer: each ends in an error that names the line, or in a verdict, never in a number made up."""

from contextlib import suppress
from fractions import Fraction

import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ProgramError, TensorProgError, UnsolvableError
from tensorprog.finite.confirm import Confirmation
from tensorprog.finite.network import predict
from tensorprog.program.text import parse


def net(phi="tanh", *, W1="", W2="", V="", xi="", more="", f="V @ x2", output="f", loss="squared"):
    """Return a network of two layers, some lines of it replaced."""
    return parse(f"""
dim n
dim d = 3
dim k = 1
input xi : d {xi}
param W1 : n x d {W1}
param W2 : n x n {W2}
param V : k x n {V}
x1 = {phi}(W1 @ xi)
h2 = W2 @ x1
x2 = {phi}(h2)
{more}
f = {f}
output {output}
loss {loss}
""")


@pytest.mark.parametrize("phi", ["tanh", "relu", "exp", "sin", "gaussian", "square"])
@pytest.mark.parametrize("given", ["[a=0, b=0, c=0]", "[a=0, b=0]", "[a=0, b=-1, c=2]"])
def test_a_given_init_that_blows_up_is_named_with_its_line(phi, given):
    with pytest.raises(UnsolvableError, match=r"line h2@0 = W2 @ x1@0: h2 (still )?grows with n at step 0") as e:
        tp.derive(net(phi, W2=given), "adam")
    assert e.value.line == "h2@0 = W2 @ x1@0"
    assert e.value.value == ("n^(3/2)" if "-1" in given else "√n")
    assert "given" in e.value.fix


@pytest.mark.parametrize("given, line", [
    ({"W1": "[a=0, b=-1]"}, "_1@0 = W1 @ xi"),
    ({"W2": "[init=one]"}, "h2@0 = W2 @ x1@0"),
    ({"W2": "[a=0, c=-5]"}, "dW2@0.h2@1 = dW2@0 @ x1@1"),
])
def test_the_first_line_that_grows_is_named(given, line):
    with pytest.raises(UnsolvableError) as e:
        tp.derive(net(**given), "sgd")
    assert e.value.line == line


def test_what_grows_only_once_its_factors_align_is_named_too():
    attention = net(more="s = sum((W2 @ x2) * h2) / n^(1/2)\nw = exp(s)", f="V @ (w * x2)")
    with pytest.raises(UnsolvableError, match="s grows with n at step 0 once its factors align") as e:
        tp.derive(attention, "sgd")
    assert e.value.value == "√n"


@pytest.mark.parametrize("changes, weight", [
    ({"xi": "= [0, 0, 0]"}, "W1"),
    ({"xi": "= [0, 0, 0]", "phi": "cos"}, "W1"),
    ({"W1": "[init=zero]", "phi": "relu"}, "W2"),
    ({"W1": "[init=zero]", "W2": "[init=zero]"}, "V"),
    ({"more": "param Z : n x n"}, "Z"),
    ({"f": "mean(x2 * x2)"}, "V"),
    ({"f": "V @ (x2 - x2)"}, "V"),
])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_weight_that_multiplies_only_zeros_has_no_size(changes, weight, optimizer):
    with pytest.raises(UnsolvableError, match="multiplies nothing, or only zeros") as e:
        tp.derive(net(**changes), optimizer)
    assert e.value.value == weight and e.value.line.startswith(f"param {weight} :")


@pytest.mark.parametrize("zero", ["W1", "W2", "V"])
def test_a_layer_that_starts_at_zero_is_derived_from_what_it_becomes(zero):
    """Gradients pass through later weights before these meet anything: their size comes from the forward pass."""
    derived, plain = tp.derive(net(**{zero: "[init=zero]"}), "adam"), tp.derive(net(), "adam")
    for name, w in derived.weights.items():
        assert w.init == ("zero" if name == zero else "normal")
        assert zero == name or (w.a, w.b) == (plain.weights[name].a, plain.weights[name].b), name
    assert all(v.first_learns is not None for v in derived.learning.values())
    assert "meets" in derived.explain("V" if zero != "V" else "W2")
    assert tp.classify(net(**{zero: "[init=zero]"}), derived, optimizer="adam").feature_learning


def test_a_learning_rate_that_nothing_depends_on_is_free():
    dead = tp.derive(net(f="V @ x1"), "sgd")
    assert {k for k, w in dead.weights.items() if w.c is None} == {"W2"}
    constant = tp.derive(net(f="0 * (V @ x2)"), "sgd")
    assert all(w.c is None for w in constant.weights.values())
    assert str(constant).count("any") == str(constant).count("never") == 3
    assert "free" in constant.explain("V")


def test_a_constant_with_an_unknown_exponent_is_made_of_order_one():
    derived = tp.derive(net(more="exponent alpha\ns = 3 / n^alpha\nt = tanh(s)", f="V @ (t * x2)"), "sgd")
    assert derived.multipliers == {"alpha": 0}
    assert "alpha = 0" in derived.explain("alpha")


def test_nothing_to_train_is_refused():
    with pytest.raises(ProgramError, match="nothing to train"):
        tp.derive(net(), "adam", freeze=["W1", "W2", "V"])


def test_an_output_along_a_growing_axis_is_not_covered():
    with pytest.raises(NotCoveredError, match="output x2"):
        tp.derive(net(output="x2"), "sgd")


BAD = {
    "given": {"W2": "[a=0, b=0, c=0]"},
    "zero data": {"xi": "= [0, 0, 0]"},
    "zero weights": {"W1": "[init=zero]", "W2": "[init=zero]", "V": "[init=zero]"},
    "ones": {"W1": "[init=one]", "W2": "[init=one]", "V": "[init=one]"},
    "constant output": {"f": "0 * (V @ x2)"},
    "scalar output": {"f": "sum(x2 * x2)"},
    "exp": {"phi": "exp"},
    "exp of what grows": {"more": "s = n * mean(x2 * x2)\nt = exp(s)", "f": "V @ (t * x2)"},
    "unknown after a blow-up": {"phi": "gaussian", "W1": "[b=-1]", "more": "exponent alpha", "f": "(V @ x2) / n^alpha"},
    "square of what vanishes": {"phi": "square", "W1": "[b=1]"},
    "kink at zero": {"phi": "abs", "W1": "[init=zero]"},
    "loss": {"loss": "cross_entropy", "W2": "[b=-1]"},
}


@pytest.mark.parametrize("name", BAD)
def test_every_request_on_a_strange_network_ends_in_an_answer_or_a_named_error(name):
    network = net(**BAD[name])
    requests = [lambda o=o: str(tp.derive(network, o)) for o in ("sgd", "adam")]
    requests += [lambda p=p: tp.classify(network, p).explain() for p in ("sp", "ntp", "mup")]
    requests += [lambda b=b: str(tp.classify(network, {"*": {"a": "0", "b": b, "c": b}}, optimizer="signsgd"))
                 for b in ("-1", "1")]
    requests += [lambda p=p: predict(network, p, steps=1) for p in (None, "sp")]
    requests += [lambda: tp.derive(network, "adam", freeze=["W1"], eps=Fraction(1, 10**8))]
    for request in requests:
        with suppress(TensorProgError):
            assert request()


def test_predictions_say_where_they_end():
    assert predict(tp.nets.mlp(2), "sp", steps=2).stopped == "Uh2@1"
    assert predict(tp.nets.mlp(2), "ntp", steps=2).stopped is None
    ended = Confirmation((), (), (), stopped="Uh2@1")
    words = "predictions end at Uh2@1, the first blow-up"
    assert words in str(ended) and words in ended._repr_html_() and ended.to_json()["stopped"] == "Uh2@1"
    whole = Confirmation((), (), ())
    assert "predictions end" not in str(whole) + whole._repr_html_() and whole.to_json()["stopped"] is None
