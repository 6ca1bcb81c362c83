"""What the theory does not cover, and requests that make no sense: the line, the value, the reason and the fix."""

import pickle
import re
from fractions import Fraction

import pytest

from tensorprog.errors import NoClosedFormError, NotCoveredError, ProgramError, TensorProgError
from tensorprog.finite.limit import limit
from tensorprog.program.text import parse

WIDE = "matrix W : n x n ~ N(0, 1)\nvector x : n\nh = W @ x\n"
FEW = "dim d = 3\nmatrix U : n x d ~ N(0, 1)\n"
TWO = "vector x, u : n\n"
SUM = "vector x, v, u : n\ns = sum(v*x)/n^(1/2)\n"
RECT = "dim m ~ 2*n\nmatrix W : m x n\nvector x : n\ny = W.T @ (W @ x)\nq = mean(x*y)"

#: name -> text, variable, keywords, class, and how the line, the value, the reason and the fix begin (patterns)
REFUSED = {
    "a vector that grows": (
        WIDE, "h", {}, NotCoveredError,
        r"h = W @ x$", r"n\^\(1/2\)", "h grows like", r"divide it by n\^\(1/2\)"),
    "an average that grows": (
        WIDE + "q = mean(h*h)", "q", {}, NotCoveredError,
        r"q = mean\(h \* h\)", r"n\^\(1\)", "q grows like", r"divide it by n\^\(1\)"),
    "the argument of a function grows": (
        WIDE + "y = tanh(h)\nq = mean(y*y)", "q", {}, NotCoveredError,
        r"y = tanh\(h\)", r"n\^\(1/2\)", "the argument of tanh grows", "scale it down"),
    "scores that grow": (
        TWO + "a = sum(x*x)\nb = sum(u*u)\ny = softmax_0(a, b)*x\nq = mean(y*y)", "q", {}, NotCoveredError,
        r"_1 = softmax_0\(a, b\)", "_1", "no exponent follows", "look at the first variable that grows"),
    "a sum whose mean does not vanish": (
        "vector x : n\ns = sum(x*x)/n^(1/2)", "s", {}, NotCoveredError,
        r"s = n\^\(-1/2\)\*sum", r"n\^\(1/2\)", "s grows like", "divide it by"),
    "growth of exp(x^2)": (
        "vector x : n\ny = exp(x^2)\nq = mean(y)", "q", {}, NotCoveredError,
        r"y = exp\(x\^2\)", "exp", "its argument grows like the power 2 of Gaussians", "use a function of polynomial"),
    "growth of exp(exp(x))": (
        "vector x : n\ny = exp(exp(x))\nq = mean(y)", "q", {}, NotCoveredError,
        r"y = exp\(exp\(x\)\)", "exp", "its argument grows exponentially", "use a function of polynomial"),
    "the logarithm of a Gaussian": (
        "vector x : n\ny = log(x)\nq = mean(y)", "q", {}, NotCoveredError,
        r"y = log\(x\)", "log", "its argument is not known to stay away from the edge", "write it as in"),
    "one over a square": (
        "vector x : n\ny = 1/x^2\nq = mean(y)", "q", {}, NotCoveredError,
        "_", "reciprocal", "its argument is not known to stay away from the edge", "write it as in"),
    "one over a limit that is zero": (
        "vector x : n\nm = mean(x*x)\ny = 1/(m - 1)", "y", {}, NotCoveredError,
        "_", "0", "reciprocal is not defined here", "move the argument"),
    "the root of a limit that is negative": (
        "vector x : n\nm = mean(x*x)\ny = sqrt(m - 2)", "y", {}, NotCoveredError,
        r"y = sqrt\(m - 2\)", "-1", "sqrt is not defined here", "move the argument"),
    "a jump at the limit": (
        "vector x : n\nm = mean(x*x)\ny = step(m - 1)*x\nq = mean(y*y)", "q", {}, NotCoveredError,
        r"_\w+ = step\(", "0", "step jumps at this limit", "use a continuous function"),
    "a jump at a constant": (
        "vector x : n ~ N(1/2, 0)\ny = quantizer(x, 3)\nq = mean(y)", "q", {}, NotCoveredError,
        r"y = quantizer\(x, 3\)", "1/2", r"quantizer\(3\) jumps", "use a continuous function"),
    "a mean that a narrow axis makes larger": (  # a.b/m is of order m^(-1/2), whatever n is
        "dim m ~ n^(1/2)\nmatrix Q : n x m ~ N(0, 1/m)\nvector a, b : m\nu = Q @ a\nv = Q @ b\n"
        "s = n^(1/4)*mean(u*v)\nq = s*s", "q", {}, NotCoveredError,
        r"_1 = mean\(u \* v\)", r"n\^\(-1/4\)", "its mean vanishes, and it may be as large as sums", "give these"),
    "leading terms that cancel in the limit only": (
        TWO + "y = x + n^(-1/2)*u\nz = n^(1/2)*(y - x)\nq = mean(z*z)", "q", {}, NotCoveredError,
        r"q = mean\(z \* z\)", r"n\^\(1\)", "its leading term vanishes", "write the line so that"),
    "a function near one of its values": (
        "vector x : n\ny = n*cos(n^(-1/2)*x) - n\nq = mean(y)", "q", {}, NotCoveredError,
        r"q = mean\(y\)", r"n\^\(1\)", "its leading term vanishes", "write the line so that"),
    "both ways between axes of different growth": (
        "dim m ~ n^(1/2)\nmatrix W : m x n\nvector x : n\ny = W.T @ (W @ x)\nq = mean(y*y)", "q", {}, NotCoveredError,
        r"y = W\.T @ ", "m ~ n", "W is used both ways", "give both axes one growth"),
    "a sum whose factors depend on each other": (
        "matrix W : n x n\nvector x : n\ny = W @ x\ns = sum(tanh(y))/n^(1/2)", "s", {}, NotCoveredError,
        r"_m1 = sum\(tanh\(y\)\)", r"n\^\(1/2\)", "a sum whose mean vanishes is known to be Gaussian if", "use mean"),
    "a small term that weighs in a sum": (
        TWO + "y = u + n^(-1/2)*x\ns = sum(x*y)/n^(1/2)", "s", {}, NotCoveredError,
        "_m. = sum", r"n\^\(1/2\)", "a sum whose mean vanishes is known to be Gaussian if", "use mean"),
    "small terms behind constants that cancel": (
        "vector u : n\ny = n^(1/2)*sigmoid(n^(-1/2)*u) - 1/2*n^(1/2)\ns = mean(u*y)", "s", {}, NotCoveredError,
        "_m. = sum", r"n\^\(1/2\)", "a sum whose mean vanishes is known to be Gaussian if", "use mean"),
    "a function of a random limit": (
        SUM + "t = tanh(s)", "t", {}, NotCoveredError,
        "", "", "it is random in the limit, and not Gaussian", "ask for the Gaussian outputs"),
    "an average given a random limit": (
        SUM + "y = relu(u + s)\nt = mean(y)", "t", {}, NotCoveredError,
        "", "", "it is random in the limit, and not Gaussian", "ask for the Gaussian outputs"),
    "the square of a random limit": (
        SUM + "t = s*s", "t", {}, NotCoveredError,
        "", "", "it is random in the limit, and not Gaussian", "ask for the Gaussian outputs"),
    "a random limit, sampled": (
        SUM, "s", {"method": "sampled"}, NotCoveredError,
        r"s = sum|s = n\^\(-1/2\)\*|_m1", "", "this does not concentrate|it is random", "ask for"),
    "a random vector of fixed size": (
        FEW + "vector g : d\nh = U @ g\nq = mean(h*h)", "q", {}, NotCoveredError,
        "vector d g", "vector d", "a random vector along a fixed axis stays random", "give it values"),
    "a random matrix of fixed size": (
        FEW + "matrix G : d x d ~ N(0, 1)\ninput xi : d = [1, 2, 3]\nh = U @ (G @ xi)\nq = mean(h*h)", "q", {},
        NotCoveredError, "matrix G", "matrix d x d", "a random matrix of fixed size stays random", "let an axis"),
    "data of another size": (
        FEW + "input xi : d\nh = U @ xi\nq = mean(h*h)", "q", {"data": {"xi": [1, 2]}}, NotCoveredError,
        "vector d xi", r"\[Fraction\(1, 1\), ", "this data has", "give it 3"),
    "data of another name": (
        FEW + "input xi : d\nh = U @ xi\nq = mean(h*h)", "q", {"data": {"eta": [1, 2, 3]}}, ProgramError,
        "eta", "eta", "no such variable", "name one of: U, xi, h, q"),
    "an exponent without a value": (
        "exponent alpha\nvector x : n\ny = n^-alpha*x\nq = mean(y*y)", "q", {}, NotCoveredError,
        r"n\^\(-alpha\)", "alpha", "this exponent is unknown", "give alpha a value"),
    "no such variable": (
        "vector x : n\nq = mean(x*x)", "r", {}, ProgramError,
        "r", "r", "no such variable", "name one of: x, q"),
    "a matrix": (
        RECT, "W", {}, ProgramError,
        "matrix W : m x n", "W", "a matrix has no limit of its own", "ask for a product with it"),
    "no such method": (
        RECT, "q", {"method": "numeric"}, ProgramError,
        "limit", "numeric", "no such method", "use one of: auto, exact, sampled"),
    "nothing asked for": (
        RECT, None, {}, ProgramError,
        "limit", "no outputs", "the program has no outputs", "name a variable"),
    "a symbol for a ratio, sampled": (
        RECT, "q", {"method": "sampled", "ratios": {"m": 3}}, ProgramError,
        "limit", "sampled", "a population needs numbers", "leave ratios out"),
    "an exact form that takes too long": (
        "matrix W : n x n\nvector x : n\ny = W.T @ tanh(W @ x)\nz = W @ tanh(y)\nw = W.T @ tanh(z)\n"
        "v = W @ tanh(w)\nq = mean(v*tanh(z*v))", "q", {"method": "exact", "budget": 0.1}, NoClosedFormError,
        "", "", "", "take the sampled limit|use method='sampled'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_and_the_message_says_where_what_why_and_what_to_do(case):
    text, name, kwargs, cls, *parts = REFUSED[case]
    with pytest.raises(cls) as caught:
        limit(parse("dim n\n" + text).freeze(), name, **kwargs)
    error = caught.value
    assert type(error) is cls
    for pattern, found in zip(parts, (error.line, str(error.value), error.reason, error.fix), strict=True):
        assert re.match(pattern, found), f"{found!r} does not begin like {pattern!r}"
    assert str(error) == f"line {error.line}: {error.reason} (got {error.value!r})\n  fix: {error.fix}"
    assert "Traceback" not in str(error) and "\n" not in error.line + error.reason + error.fix
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


#: What the fix of a refusal says, done: the text has a limit.
REPAIRED = {
    "a vector that grows": (WIDE + "q = mean(h*h)/n", "q", 1),
    "the argument of a function grows": (WIDE + "y = sign(h/n^(1/2))\nq = mean(y*y)", "q", 1),
    "one over a square": ("vector x : n\ny = 1/(1 + x^2)\nq = mean(y*(1 + x^2))", "q", 1),
    "a jump at the limit": ("vector x : n\nm = mean(x*x)\ny = step(m - 1/2)*x\nq = mean(y*y)", "q", 1),
    "leading terms that cancel in the limit only": (TWO + "q = mean(u*u)", "q", 1),
    "a sum whose factors depend on each other": (
        "matrix W : n x n\nvector x, v : n\ny = W @ x\ns = sum(v*sign(y))/n^(1/2)", "s", 0),
    "both ways between axes of different growth": (
        "dim m ~ 2*n\nmatrix W : m x n\nvector x : n\ny = W.T @ (W @ x)\nq = mean(x*y)", "q", 2),
    "an exponent without a value": (
        "exponent alpha\nvector x : n\ny = n^-alpha*x\nq = mean(y*y)", "q", 1),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_the_fix_helps(case):
    assert case in REFUSED
    text, name, value = REPAIRED[case]
    values = {"alpha": Fraction(0)} if "alpha" in text else None
    assert limit(parse("dim n\n" + text).freeze(), name, values=values).value == pytest.approx(value, abs=1e-12)


def test_a_variable_that_nobody_asks_for_may_be_out_of_reach():
    p = parse("dim n\n" + WIDE + "y = exp(x^2)\nz = tanh(h)\nq = mean(x*x)").freeze()
    assert limit(p, "q").exact == 1
    with pytest.raises(TensorProgError):
        limit(p, "y")


@pytest.mark.parametrize(("ratios", "message"), [({"k": 3}, "no dimension of this name grows"),
                                                 ({"m": 0}, "positive"), ({"m": -1}, "positive")])
def test_ratios_are_of_growing_dimensions_and_positive(ratios, message):
    p = parse("dim n\ndim m ~ 2*n\nmatrix W : m x n ~ N(0, 1/n)\nvector x : n\ns = mean(x*(W.T @ (W @ x)))")
    with pytest.raises(ProgramError, match=message):
        p.limit("s", ratios=ratios)
