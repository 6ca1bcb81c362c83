"""A user's own functions: found facts, derivatives, refusals."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import sympy

from tensorprog.atoms.multivariate import Multivariate, Softmax
from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.registry import nonlinearities, nonlinearity
from tensorprog.errors import NotCoveredError, ParseError, RecordError

FACTS = ("parity", "degree", "infinity", "taylor", "kinks", "jumps", "domain")
X = np.array([-2.7, -1.3, -0.6, 0.4, 1.1, 2.2])


def cases():
    for record in nonlinearities():
        if record.params and record.domain == "real":
            continue
        yield record


def mish(x):
    return x * sympy.tanh(sympy.log(1 + sympy.exp(x)))


@pytest.mark.parametrize("record", [r for r in cases() if not r.params], ids=str)
def test_a_formula_shows_the_facts_of_the_registered_record(record):
    mine = Nonlinearity.from_sympy(record.expression, "mine")
    for fact in FACTS:
        assert getattr(mine, fact) == getattr(record, fact), fact
    x = X if record.domain == "real" else np.abs(X)
    np.testing.assert_allclose(mine(x), record(x), rtol=1e-12)
    made, own = record.partial(0), mine.partial(0)
    assert (made is None) == (own is None)
    if made is not None:
        np.testing.assert_allclose(own(x), made(x), rtol=1e-9, atol=1e-12)
        assert own.parity == made.parity or record.domain == "positive"  # log' = 1/x is odd where log is not defined
        assert own.infinity == made.infinity


@pytest.mark.parametrize("record", [r for r in cases() if not r.params], ids=str)
def test_values_show_the_facts_of_the_registered_record(record):
    mine = Nonlinearity.from_callable(record.numpy, "mine")
    for fact in FACTS:
        assert getattr(mine, fact) == getattr(record, fact), fact
    x = X if record.domain == "real" else np.abs(X)
    made, own = record.partial(0), mine.partial(0)
    assert (made is None) == (own is None)
    if made is not None:
        np.testing.assert_allclose(own(x), made(x), rtol=1e-8, atol=1e-9)


def test_higher_derivatives_of_values():
    mine, tanh = Nonlinearity.from_callable(np.tanh, "mine"), nonlinearity("tanh")
    for error in (1e-12, 1e-10, 1e-8):
        mine, tanh = mine.partial(0), tanh.partial(0)
        np.testing.assert_allclose(mine(X), tanh(X), atol=error)
    with pytest.raises(NotCoveredError, match="noise"):
        mine.partial(0)


def test_a_given_derivative_is_used_and_checked():
    mine = Nonlinearity.from_callable(np.sin, "mine", derivative=np.cos)
    np.testing.assert_array_equal(mine.partial(0)(X), np.cos(X))
    np.testing.assert_allclose(mine.partial(0).partial(0)(X), -np.sin(X), atol=1e-12)
    with pytest.raises(RecordError, match=r"nonlinearity 'mine': derivative disagrees with finite differences at x"):
        Nonlinearity.from_callable(np.sin, "mine", derivative=np.sin)


def test_formulas_that_overflow_are_continued_by_their_growth():
    far = np.array([-1e6, -1e3, 1e3, 1e6])
    soft = Nonlinearity.from_sympy(lambda x: sympy.log(1 + sympy.exp(x)), "soft")
    np.testing.assert_allclose(soft(far), [0, 0, 1e3, 1e6])
    np.testing.assert_allclose(soft.partial(0)(far), [0, 0, 1, 1])
    own = Nonlinearity.from_sympy(mish, "mish")
    for k in range(4):
        assert np.all(np.isfinite(own(far))), k
        assert own.infinity == (1, 0, None, None)[k]
        own = own.partial(0)


def test_functions_are_values():
    z = sympy.Symbol("z")
    one, two = (Nonlinearity.from_sympy(e, "mine") for e in (sympy.tanh(z), sympy.tanh(2 * z)))
    assert one == Nonlinearity.from_sympy(sympy.tanh(sympy.Symbol("w")), "mine") != two
    assert pickle.loads(pickle.dumps(one)) == one
    values = Nonlinearity.from_callable(np.tanh, "mine")
    assert values == Nonlinearity.from_callable(np.tanh, "mine") == pickle.loads(pickle.dumps(values))
    assert values != Nonlinearity.from_callable(np.sin, "mine")
    with pytest.raises(ParseError, match="no such nonlinearity"):
        nonlinearity("mine")


def test_kinks_off_the_grid_are_taken_from_the_formula():
    clipped = Nonlinearity.from_sympy(lambda x: sympy.Min(sympy.Max(x, sympy.Rational(-1, 3)), 6), "clip")
    assert clipped.kinks == (Fraction(-1, 3), 6)
    assert clipped.partial(0).jumps == (Fraction(-1, 3), 6)


@pytest.mark.parametrize("formula, message", [
    (sympy.Symbol("x") * sympy.Symbol("y"), r"its symbols are \['x', 'y'\]"),
    (sympy.Integer(3), "its symbols are"),
    (lambda x: 3.0, "not a sympy expression"),
    (lambda x: sympy.Function("g")(x), "numpy cannot evaluate it"),
    (lambda x: sympy.log(-x), "not finite"),
])
def test_formulas_that_are_refused(formula, message):
    with pytest.raises(RecordError, match=message):
        Nonlinearity.from_sympy(formula, "mine")


def test_a_function_without_a_formula_says_so():
    with pytest.raises(NotCoveredError, match="no formula"):
        Nonlinearity.from_callable(np.tanh, "mine").expression(sympy.Symbol("x"))


# ------------------------------------------------------------------------------------ several arguments


def test_softmax_and_its_derivatives_follow_the_formula():
    rng = np.random.default_rng(3)
    args = list(rng.normal(size=(3, 5)))
    symbols = sympy.symbols("a b c", real=True)
    fn = Softmax(3, 1)
    for i in (1, 0, 1):
        phi = sympy.lambdify(symbols, fn.expression(*symbols), "numpy")
        np.testing.assert_allclose(fn.evaluate({}, {}, *args), phi(*args), rtol=1e-12, atol=1e-15)
        fn = fn.partial(i)
    assert fn.name == "d0_1_1_softmax_1"
    assert fn == Softmax(3, 1).partial(0).partial(1).partial(1)


def test_softmax_does_not_overflow_and_keeps_its_dtype():
    args = [np.array([1e4, 3], np.float32), np.array([-1e4, 3], np.float32)]
    y = Softmax(2, 0).evaluate({}, {}, *args)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, np.array([1, 0.5], np.float32))
    assert type(Softmax(2, 0).evaluate({}, {}, 1.0, 1.0)) is float
    assert Softmax(1, 0).partial(0) is None
    assert Softmax(2, 0).value_at_zero_nonzero


def test_softmax_of_a_missing_component():
    with pytest.raises(RecordError, match="softmax has 3 components"):
        Softmax(3, 3)


def test_functions_of_several_arguments():
    x, y = sympy.symbols("x y")
    gate = Multivariate.from_sympy(x * sympy.tanh(y), (x, y), "gate")
    a, b = np.array([0.5, -1.5]), np.array([1.0, 0.2])
    np.testing.assert_allclose(gate.partial(1).evaluate({}, {}, a, b), a / np.cosh(b) ** 2)
    assert gate.partial(0).partial(0) is None
    assert (gate.parity, gate.degree, gate.value_at_zero_nonzero) == (None, None, False)
    assert pickle.loads(pickle.dumps(gate)) == gate
    assert gate.evaluate({}, {}, a.astype(np.float32), b.astype(np.float32)).dtype == np.float32
    own = Multivariate.from_callable(lambda x, y: x * np.tanh(y), 2, "gate")
    np.testing.assert_allclose(own.partial(1).evaluate({}, {}, a, b), a / np.cosh(b) ** 2, atol=1e-9)
    np.testing.assert_allclose(own.partial(1).partial(0).evaluate({}, {}, a, b), 1 / np.cosh(b) ** 2, atol=1e-7)
    with pytest.raises(NotCoveredError, match="noise"):
        own.partial(1).partial(0).partial(0)


def test_wrong_functions_of_several_arguments_are_refused():
    wrong = Multivariate.from_callable(lambda x, y: x * y, 2, "f", partials=(lambda x, y: y, lambda x, y: y))
    assert wrong.partial(0).evaluate({}, {}, 2.0, 3.0) == 3.0
    with pytest.raises(RecordError, match="function 'f': derivative 1 disagrees with finite differences"):
        wrong.partial(1)
    x, y = sympy.symbols("x y")
    with pytest.raises(RecordError, match="not an expression in x"):
        Multivariate.from_sympy(x * y, (x,), "f")
    with pytest.raises(RecordError, match="another shape"):
        Multivariate.from_callable(lambda x, y: np.ones(3), 2)


@pytest.mark.parametrize("fn, growth", [
    (lambda x: x**3 * np.sin(x), "polynomial"), (lambda x: np.exp(-x * x), "polynomial"),
    (lambda x: np.log1p(x * x), "polynomial"), (lambda x: np.exp(np.sqrt(np.abs(x))), "exponential"),
    (lambda x: np.cosh(x) * np.sin(3 * x), "exponential"), (lambda x: np.exp(x) / (1 + x * x) ** 2, "exponential"),
    (lambda x: np.exp(-x / 1e7), "exponential"), (lambda x: np.exp(x + x * x / 10_000), "faster"),
    (lambda x: np.exp(np.abs(x) ** 1.1), "faster"), (lambda x: np.sinh(x * x), "faster"),
])
def test_growth_shows_in_the_values(fn, growth):
    assert Nonlinearity.from_callable(fn, "f").growth == growth


def test_growth_and_pieces_of_formulas():
    elu = Nonlinearity.from_sympy(lambda x: sympy.Piecewise((x, x > 0), (sympy.exp(x) - 1, True)), "elu")
    assert elu.growth == "polynomial" and elu.pieces is not None and elu.partial(0).pieces is not None
    assert Nonlinearity.from_sympy(lambda x: x * sympy.exp(-x), "f").growth == "exponential"
    assert Nonlinearity.from_sympy(lambda x: sympy.exp(x**2 / 9), "f").growth == "faster"
    hard = Nonlinearity.from_sympy(lambda x: sympy.Min(sympy.Max(x, -1), 1), "hard")
    assert hard.pieces == nonlinearity("hard_tanh").pieces
    assert Nonlinearity.from_sympy(lambda x: x * sympy.erf(x), "f").pieces is not None
    for formula in (sympy.tanh, lambda x: sympy.Abs(x**2 - 2), lambda x: sympy.sin(x + 1), lambda x: sympy.sqrt(3) * x):
        assert Nonlinearity.from_sympy(formula, "f").pieces is None
