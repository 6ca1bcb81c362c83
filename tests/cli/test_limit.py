"""``tensorprog limit``: what it answers, to programs and to people."""

import re

from .terminal import answer, run

LIMITS = ("limit", "limit.tp")


def test_limit_json(capsys):
    outputs = answer(capsys, *LIMITS)["outputs"]
    assert list(outputs) == ["q", "t"]
    for found in outputs.values():
        assert {"exact", "value", "error", "method"} <= set(found)
    assert (outputs["q"]["exact"], outputs["q"]["value"], outputs["q"]["error"]) == ("2", 2.0, 0.0)
    assert outputs["q"]["method"] == "exact"
    assert (outputs["t"]["exact"], outputs["t"]["method"]) == (None, "quadrature")
    assert abs(outputs["t"]["value"] - 0.39429449039784814) < outputs["t"]["error"] < 1e-9


def test_limit_of_variables_by_name(capsys):
    outputs = answer(capsys, *LIMITS, "--name", "y", "--name", "f", "--name", "small")["outputs"]
    assert list(outputs) == ["q", "t", "y", "f", "small"]
    y, f, small = (outputs[x] for x in ("y", "f", "small"))
    assert (y["kind"], y["exact"], y["z"], y["variance"]) == ("vector", None, "Z^x + Ẑ^y", 2.0)
    assert (f["kind"], f["exact"], f["value"], f["variance"]) == ("gaussian", None, 0.0, 2.0)
    assert (small["exact"], small["value"], small["exponent"]) == ("0", 0.0, "-1/2")


def test_limit_with_a_symbol_for_a_ratio(capsys):
    import sympy

    found = answer(capsys, *LIMITS, "--ratio", "m=rho")["outputs"]["q"]
    rho = sympy.Symbol("rho")
    assert sympy.parse_expr(found["exact"], {"rho": rho}).expand() == rho / 2 + rho**2 / 4
    assert found["value"] is None


def test_sampled_limits_depend_on_the_seed_and_keep_their_error(capsys):
    found = [answer(capsys, *LIMITS, "--method", "sampled", "--tol", "0.01", "--seed", s)["outputs"]["q"]
             for s in ("1", "1", "2")]
    assert found[0] == found[1] != found[2]
    for x in found:
        assert (x["exact"], x["method"]) == (None, "sampled")
        assert 0 < abs(x["value"] - 2) < 3 * x["error"]


def test_limit_for_people(capsys):
    status, out, err = run(capsys, *LIMITS, "--name", "small", "--name", "y")
    assert (status, err) == (0, "")
    assert re.search(r"^q +2 +2 +closed form$", out, re.M)
    assert re.search(r"^t +0\.394294490\d* +\de-\d+ +quadrature$", out, re.M)
    assert re.search(r"^y +Z = Ẑ\^y \+ Z\^x, variance 2 +0 +closed form$", out, re.M)
    assert re.search(r"^small +0, like n\^\(-1/2\)", out, re.M)


def test_limit_explain(capsys):
    _, out, _ = run(capsys, *LIMITS, "--explain")
    assert "Ż^y = 2 E[∂relu(Z^{Wx})/∂Ẑ^{Wx}] Z^x = Z^x, from the earlier Wx" in out
    derivation = answer(capsys, *LIMITS, "--explain")["outputs"]["q"]["derivation"]
    assert derivation[-1].endswith("q° = E[(Z^y)^2] = 2")


def test_limit_of_a_network_takes_a_parametrization(capsys):
    words = ("limit", "mlp.tp", "--name", "h2", "--name", "x1")
    data = answer(capsys, *words, "--parametrization", "sp")
    assert data["parametrization"] == "sp"
    h2, x1 = (data["outputs"][x] for x in ("h2", "x1"))
    assert abs(h2["variance"] - x1["variance"]) < 1e-12, "W2 has entries N(0, 1/n)"
    assert answer(capsys, *words)["outputs"]["f"]["exponent"] == "-1/2", "the derived one has a readout of 1/n"


def test_what_has_no_limit_is_status_3(capsys):
    status, out, err = run(capsys, *LIMITS, "--name", "large")
    assert (status, out) == (3, "")
    assert err.startswith("error: line large = sum(x * x): large grows like n^(1)")
