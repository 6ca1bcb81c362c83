"""What has no kernel, and input that is none: each is refused where it is, with what to do."""

from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ParseError, ProgramError
from tensorprog.kernels.kernel import nngp, ntk
from tensorprog.program.text import parse

HALF = Fraction(1, 2)



def refused(text, **options):
    network = parse("dim n\ndim d = 2\ndim o = 1\ninput xi : d\nparam U : n x d [a=0, b=0, c=0]\n"
                    "param W : n x n [a=1/2, b=0, c=0]\nparam V : o x n [a=1/2, b=0, c=0]\n" + text)
    return lambda make=nngp: make(network, **options)


@pytest.mark.parametrize("text, reason, line", [
    ("h = U @ xi\ns = sum(h)\ny = s*h\noutput y", "stays random", "y = "),
    ("h = U @ xi\nf = V @ h\ny = tanh(f)\noutput y", "stays random", "y = tanh(f)"),
    ("h = U @ xi\ny = exp(h*h)\nf = V @ y\noutput f", "like the power 2 of Gaussians", "y = exp("),
    ("h = U @ xi\ny = rsqrt(h*h)\nf = V @ y\noutput f", "away from the edge of the domain", "y = rsqrt("),
    ("h = U @ xi\nq = mean(h*h)\noutput q", "not random in the limit", "q = "),
    ("f = V @ (W @ (n^(1/2)*(U @ xi)))\noutput f", "grows with n", "f = "),
])
def test_what_is_not_covered_is_refused(text, reason, line):
    with pytest.raises(NotCoveredError, match=reason) as caught:
        refused(text)()
    assert line in caught.value.line and caught.value.fix


def test_tangent_kernels_need_an_independent_readout():
    with pytest.raises(NotCoveredError, match="readout that is independent"):
        refused("h = W @ relu(U @ xi)\noutput h")(ntk)
    with pytest.raises(NotCoveredError, match=r"ntk grows with n \(got 'n\^\(1\)'\)") as caught:
        ntk(tp.nets.mlp(), "sp")
    assert "with_lr(1)" in caught.value.fix
    with pytest.raises(ProgramError, match="nothing is trained"):
        ntk(parse("dim n\ndim d = 2\ninput xi : d\nmatrix U : n x d ~ N(0, 1)\nmatrix V : d x n\nf = V @ (U @ xi)\n"
                  "output f"))


def test_bad_inputs():
    k = nngp(tp.nets.mlp(d_in=3))
    for X, reason in ((np.ones((2, 4)), "has 3 coordinates"), (np.ones(3), "has 3 coordinates"),
                      (np.full((2, 3), np.nan), "finite"), (np.ones((2, 3), complex), "real numbers"),
                      ({"x": np.ones((2, 3))}, "not the network's inputs")):
        with pytest.raises(ProgramError, match=reason):
            k(X)
    with pytest.raises(ProgramError, match="no role of this name"):
        nngp(tp.nets.mlp(), variances={"hiden": 2})
    with pytest.raises(ProgramError, match="at least 0"):
        nngp(tp.nets.mlp(), variances={"hidden": -2})
    with pytest.raises(ProgramError, match="does not fit"):
        k(np.ones((2, 3)), out=np.empty((3, 3)))
    with pytest.raises(ProgramError, match="the network has none"):
        nngp(parse("dim n\nvector x : n\noutput x"))


def network(body):
    """Return a network whose output reads out what ``body`` makes of the input's products with two matrices."""
    p = tp.Program(loss="squared")
    n, d = p.dim("n"), p.dim("d", 2)
    x = p.data("x", d)
    h, g = (p.let(k.lower(), p.param(k, n, d) @ x) for k in "HG")
    p.output(p.let("f", p.param("V", p.dim("one", 1), n) @ p.let("y", body(p, n, h, g))))
    return p.freeze()


@pytest.mark.parametrize("body", [
    # two means that agree in the limit: sqrt(n) times what is between them is random
    lambda p, n, h, g: (n**HALF * p.mean(tp.relu(h)) - n**HALF * p.mean(tp.relu(g))) * tp.erf(h),
    lambda p, n, h, g: n**HALF * p.let("s", p.mean(tp.relu(h)) - p.mean(tp.relu(g))) * tp.erf(h),
    lambda p, n, h, g: p.let("u", n**HALF * p.mean(tp.relu(h)) * h) - n**HALF * p.mean(tp.relu(g)) * h,
    # a mean that vanishes, inside a function that does there
    lambda p, n, h, g: h + n**HALF * tp.tanh(p.mean(tp.erf(h))) * h,
    lambda p, n, h, g: h + n**HALF * tp.relu(p.mean(tp.erf(h))) * h,
])
@pytest.mark.parametrize("kind", [nngp, ntk])
def test_what_is_left_of_a_cancellation_is_random(kind, body):
    with pytest.raises(NotCoveredError, match="random"):
        kind(network(body))


def test_a_number_that_vanishes_does_so_in_functions():
    X = np.array([[1.0, 0.5], [-0.3, 2.0]])
    for fn in (tp.relu, tp.tanh):
        k = nngp(network(lambda p, n, h, g, fn=fn: tp.erf(h) + fn(p.mean(tp.erf(g))) * g))
        np.testing.assert_allclose(k(X), nngp(network(lambda p, n, h, g: tp.erf(h)))(X), rtol=1e-14)


def test_a_mean_over_a_width_is_as_random_as_the_narrowest_axis():
    # (1/n) sum_i (Q a)_i (Q b)_i is a.b/m up to n^(-1/2), and that is of order m^(-1/2) = n^(-1/4)
    p = tp.Program(loss="squared")
    n, m, d = p.dim("n"), p.dim("m", growth=HALF), p.dim("d", 2)
    x = p.data("x", d)
    a, b = (tp.erf(p.param(k, m, d, a=0, b=0, c=0) @ x) for k in "AB")
    Q = p.param("Q", n, m, a=HALF / 2, b=0, c=0)
    u, v = p.let("u", Q @ a), p.let("v", Q @ b)
    y = p.let("y", n ** (HALF / 2) * p.mean(u * v) * u)
    p.output(p.let("f", p.param("V", p.dim("one", 1), n, a=HALF, b=0, c=0) @ y))
    with pytest.raises(NotCoveredError, match="random"):
        nngp(p.freeze())


def test_outputs_with_a_mean():
    # Regression takes the NNGP for the covariance of centred outputs
    p = tp.nets.mlp(depth=1, activation="relu").copy()
    p.let("g", 2 + p["f"])
    with pytest.raises(NotCoveredError, match="has a mean"):
        nngp(p.freeze(), output="g")
    X = np.eye(3)
    np.testing.assert_allclose(ntk(p, output="g")(X), ntk(p, output="f")(X), rtol=1e-11)


def test_names_once():
    net = tp.nets.mlp()
    for names in (["f", "f"], []):
        with pytest.raises(ProgramError, match="each once"):
            nngp(net, output=names)
    with pytest.raises(ProgramError, match="there twice"):
        nngp(net, inputs=["xi", "xi"])


@pytest.mark.parametrize("options, reason", [
    ({"variances": {"hidden": "2"}}, "not a number"), ({"rates": {"hidden": None}}, "not a number"),
    ({"multipliers": 2.0}, "not numbers by name"), ({"exponents": 3}, "not numbers by name"),
])
def test_options_are_numbers_by_name(options, reason):
    with pytest.raises(ProgramError, match=reason):
        nngp(tp.nets.mlp(), **options)


def test_exponents_are_rational():
    with pytest.raises(ProgramError, match="not a rational number"):
        nngp(tp.nets.transformer(1, tokens=2), exponents={"alpha": "x"})


def test_a_network_is_a_program():
    with pytest.raises(ProgramError, match="not a program"):
        nngp("mlp")


def test_bad_arguments_of_a_call():
    k, X = nngp(tp.nets.mlp()), np.eye(3)
    for workers in (0, -1, 1.5, "a"):
        with pytest.raises(ProgramError, match="threads"):
            k(X, workers=workers)
    with pytest.raises(ProgramError, match="different lengths"):
        k([[1, 2, 3], [1, 2]])
    with pytest.raises(ProgramError, match="does not fit"):
        k(X, out=[[1.0]])
    out = np.empty((3, 3))
    out.setflags(write=False)
    with pytest.raises(ProgramError, match="cannot be written"):
        k(X, out=out)


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_numbers_too_large_are_refused(activation):
    k = ntk(tp.nets.mlp(activation=activation))
    with pytest.raises(ProgramError, match="not finite in float64"):
        k(np.eye(3) * 1e200)
    with pytest.raises(ProgramError, match="not finite in float64"):
        k.diagonal(np.eye(3) * 1e200)
    with pytest.raises(ProgramError, match="not finite in float32"):
        k(np.eye(3, dtype=np.float32) * np.float32(1e30))


def test_a_norm_of_nothing_is_refused():
    def body(p, n, h, g):
        return h * tp.rsqrt(p.mean(h * h))

    with pytest.raises(ProgramError, match="not finite"):
        nngp(network(body))(np.array([[0.0, 0.0], [1.0, 2.0]]))


def test_a_progress_or_parametrization_of_another_kind():
    net = tp.nets.mlp()
    with pytest.raises(ProgramError, match="progress: not a function"):
        ntk(net)(np.eye(3), progress=3)
    with pytest.raises(ParseError, match="neither a name, nor a record, nor exponents"):
        ntk(net, 5)
