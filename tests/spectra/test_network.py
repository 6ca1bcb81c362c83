"""Jacobians: against finite differences and adjoints at finite width, against free probability in the limit."""

from fractions import Fraction as F

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.finite.numpy_backend import run
from tensorprog.program.build import apply
from tensorprog.spectra.moments import Gram, moments, singular_values
from tensorprog.spectra.network import Jacobian, feedforward, jacobian
from tensorprog.spectra.sample import Realization

from .oracle import from_free_cumulants, relu_jacobian


def mlp(p, x, n):
    """Two layers with a residual branch and a normalization, so that every rule is met."""
    W, V = (p[name] if name in p else p.matrix(name, n, n) for name in ("W", "V"))
    h = apply("tanh", W @ x)
    y = x + V @ (h * h)
    return apply("erf", y * apply("rsqrt", p.mean(y * y), F(1, 10)) - p.mean(y))


def network():
    p = tp.Program()
    n = p.dim("n")
    x, v, u = (p.vector(name, n) for name in "xvu")
    y = p.let("y", mlp(p, x, n))
    return p, n, x, v, u, y


def test_forward_is_the_directional_derivative():
    p, n, x, v, u, y = network()
    step = F(1, 10**5)
    p.let("up", mlp(p, p.let("x_up", x + step * v), n))
    p.let("down", mlp(p, p.let("x_down", x - step * v), n))
    p.let("Jv", jacobian(p, "y", "x") @ v)
    r = run(p, 48, 0, keep=["up", "down", "Jv"])
    assert (r["up"] - r["down"]) / float(2 * step) == pytest.approx(r["Jv"], abs=1e-7)


def test_backward_is_the_adjoint():
    p, n, x, v, u, y = network()
    J = jacobian(p, "y", "x")
    p.output(p.let("left", p.sum(u * (J @ v))), p.let("right", p.sum((J.T @ u) * v)))
    r = run(p, 48, 0)
    assert r["left"] == pytest.approx(r["right"], rel=1e-12)
    assert abs(r["left"]) > 0.1


def test_entries_are_those_of_the_program():
    p, n, x, v, u, y = network()
    J = jacobian(p, "y", "x")
    p.let("Jv", J @ v)
    p.let("JTu", J.T @ u)
    r = run(p, 40, 3, keep=["Jv", "JTu", "v", "u"])
    dense = Realization(p, ["y", "x"], 40, 3).dense(J)
    assert dense @ r["v"] == pytest.approx(r["Jv"], abs=1e-10)
    assert dense.T @ r["u"] == pytest.approx(r["JTu"], abs=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_relu_networks_as_free_probability_has_them(depth):
    J = jacobian(feedforward(depth, "relu", weight=2))
    assert list(moments(Gram(J), 8))[1:] == [relu_jacobian(depth, k) for k in range(1, 9)]


def test_linear_networks_and_biases():
    J = jacobian(feedforward(2, "identity", weight=F(1, 2), bias=1))
    assert moments(Gram(J), 3) == (1, F(1, 4), F(3, 16), F(12, 64))


def gauss(f):
    from scipy.integrate import quad

    return quad(lambda x: f(x) * np.exp(-x * x / 2) / np.sqrt(2 * np.pi), -12, 12, epsabs=1e-13, epsrel=1e-13)[0]


def test_tanh_against_quadrature_and_free_cumulants():
    law = [gauss(lambda x, k=k: np.cosh(x) ** (-4 * k)) for k in range(1, 6)]  # tau(D^2k)
    found = moments(Gram(jacobian(feedforward(1, "tanh"))), 5)
    assert [float(m) for m in found[1:]] == pytest.approx(from_free_cumulants(law)[1:], rel=1e-10)


def test_singular_values_of_a_network_of_the_library():
    values = {f"{s}[{w}]": F(1, 2) if s == "b" else F(0) for s in "abc" for w in ("W1", "W2", "W3", "V")}
    J = jacobian(tp.nets.mlp(3, activation="relu"), "h3", "h1")
    law = singular_values(J, 10, values=values, data={"xi": [F(1), F(2), F(3)]})
    # D and W alternate: (W3 D2 W2 D1)^T ... has the moments of two relu layers of sigma^2 = 1
    assert list(law.moments[1:5]) == [relu_jacobian(2, k, F(1)) for k in range(1, 5)]


def test_requests_without_an_answer():
    p, n, x, v, u, y = network()
    with pytest.raises(ProgramError, match="does not depend on"):
        jacobian(p, "y", "u")
    with pytest.raises(ProgramError, match="a vector along a growing axis"):
        jacobian(tp.nets.mlp(2), "f", "h1")
    with pytest.raises(ProgramError, match="takes vectors along n"):
        jacobian(p, "y", "x") @ p.vector("w", p.dim("m"))
    with pytest.raises(ProgramError, match="at least one layer"):
        feedforward(0)
    with pytest.raises(ProgramError, match="no such variable"):
        Jacobian(p, "nothing", "x").rows  # noqa: B018


def test_defaults_are_output_and_input():
    J = jacobian(feedforward(2, "tanh"))
    assert str(J) == "d x2 / d x0" and str(J.T) == "d x2 / d x0.T"
    assert J.T.T == J


def test_a_trained_weight_is_refused():
    from tensorprog.program.instructions import Outer

    p = tp.unroll(tp.nets.mlp(2), steps=1).program.copy()
    update = next(x.out for x in p.lines if isinstance(x, Outer) and x.param == "W2")
    vector = next(a for x in p.lines if x.out == update for a in x.args)
    p.let("trained", p[update] @ (p[vector] if p.dim_of(vector) == p[update].cols else p[update].T @ p[vector]))
    with pytest.raises(NotCoveredError, match="optimizer's update"):
        jacobian(p, "trained", vector)
