"""Gaussian outputs at finite width: confirmed, and refuted for a wrong variance, a wrong mean, a wrong shape."""

import pytest

from tensorprog.errors import RunError
from tensorprog.finite.fit import Verdict
from tensorprog.finite.gaussian import check_gaussian
from tensorprog.program.text import parse

NETWORK = """
dim n
dim d = 2
matrix U : n x d ~ N(0, 1)
matrix W : n x n ~ N(0, 2/n)
matrix V : 1 x n ~ N(0, 1/n)
input xi : d = [1, 2]
f = V @ relu(W @ relu(U @ xi))
output f
"""


def test_the_output_of_a_network_is_the_gaussian_that_the_limit_says():
    p = parse(NETWORK)
    assert p.limit("f").variance == pytest.approx(2.5)  # 5 * 1/2 * 2 * 1/2
    check = p.confirm("f", widths=(64, 256), seeds=1200)
    assert check.verdict is Verdict.CONFIRMED, str(check)
    assert check.to_json()["verdict"] == "confirmed" and "N(0, 2.5)" in str(check)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 3.2), (0.0, 2.0), (0.4, 2.5)])
def test_a_wrong_gaussian_is_refuted(mean, variance):
    assert check_gaussian(parse(NETWORK), "f", mean, variance, widths=(64, 256),
                          seeds=1200).verdict is Verdict.REFUTED


def test_a_product_of_gaussians_is_not_gaussian():
    p = parse("dim n\nvector u, v, w : n ~ N(0, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])\n"
              "a = sum(u*w)/n^(1/2)\nb = sum(v*w)/n^(1/2)\nf = a*b")
    assert check_gaussian(p, "f", 0, 1, widths=(64, 256), seeds=1000).verdict is Verdict.REFUTED


def test_few_seeds_are_inconclusive_and_too_few_refused():
    assert check_gaussian(parse(NETWORK), "f", 0, 2.5, widths=(64, 128), seeds=30).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(RunError, match="two widths or more"):
        check_gaussian(parse(NETWORK), "f", 0, 2.5, widths=(64,))
