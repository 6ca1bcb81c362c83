"""Every registered nonlinearity against its own formula in high precision, and records that must be refused."""

import copy
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import sympy

from tensorprog.atoms import nonlins
from tensorprog.atoms.nonlinearity import Nonlinearity
from tensorprog.atoms.pieces import derivative, piece, values
from tensorprog.atoms.registry import Folder, families, is_nonlinearity, nonlinearities, nonlinearity, register
from tensorprog.errors import ParseError, RecordError

RECORDS = nonlinearities()
ORDER = 4
each_record = pytest.mark.parametrize("record", RECORDS, ids=str)


def exact(record: Nonlinearity):
    x = sympy.Symbol("x", real=True)
    modules = [{"Heaviside": lambda x, at_zero: mpmath.mpf(at_zero if x == 0 else x > 0)}, "mpmath"]
    return sympy.lambdify(x, record.expression(x), modules)


def derivatives(record: Nonlinearity) -> list[Nonlinearity]:
    out = [record]
    while len(out) <= ORDER and (made := out[-1].partial(0)) is not None:
        out.append(made)
    return out


def domain(record: Nonlinearity) -> np.ndarray:
    x = np.array([-3.03, -1.51, -0.707, -0.211, 0.113, 0.523, 0.919, 1.823, 4.21])
    return x[x > 0] if record.domain in ("positive", "nonnegative") else x


def test_every_file_holds_the_record_of_its_name():
    files = {p.stem for p in Path(nonlins.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {r.family for r in RECORDS}
    assert len(files) >= 20


@each_record
def test_values_are_those_of_the_formula(record):
    phi, x = exact(record), domain(record)
    np.testing.assert_allclose(record(x), [float(phi(mpmath.mpf(v))) for v in x], rtol=1e-13, atol=1e-15)


@each_record
def test_derivatives_are_those_of_the_formula(record):
    x, made = domain(record), derivatives(record)
    phi = exact(record)
    with mpmath.workdps(50):
        for k, d in enumerate(made[1:], 1):
            want = [float(mpmath.diff(phi, mpmath.mpf(v), k)) for v in x]
            np.testing.assert_allclose(d(x), want, rtol=1e-10, atol=1e-11 * max(map(abs, want)), err_msg=d.name)
    if len(made) <= ORDER:
        flat = [float(mpmath.diff(phi, mpmath.mpf(v), len(made))) for v in x]
        np.testing.assert_allclose(flat, 0, atol=1e-9)


@each_record
def test_derivatives_have_the_formula_of_their_values(record):
    for d in derivatives(record)[1:]:
        phi, x = exact(d), domain(record)
        np.testing.assert_allclose(d(x), [float(phi(mpmath.mpf(v))) for v in x], rtol=1e-11, atol=1e-12, err_msg=d.name)


@each_record
def test_taylor_coefficients(record):
    for d in derivatives(record):
        if d.taylor is None:
            assert record.domain not in ("real", "nonnegative") or Fraction(0) in record.kinks
            continue
        assert len(d.taylor) == 7
        with mpmath.workdps(60):
            coefs = mpmath.taylor(exact(d), mpmath.mpf(0), 6)
        assert d.taylor == tuple(abs(c) > 1e-12 for c in coefs), d.name
        assert d.value_at_zero_nonzero == d.taylor[0]


@each_record
def test_parity_degree_and_infinity_hold_in_high_precision(record):
    for d in derivatives(record):
        phi = exact(d)
        for v in map(mpmath.mpf, domain(record)):
            if d.parity is not None:
                assert mpmath.almosteq(phi(-v), phi(v) * (1 if d.parity == "even" else -1), 1e-12, 1e-12)
            if d.degree is not None:
                for c in (mpmath.mpf("0.37"), mpmath.mpf("5.5")):
                    want = c ** (mpmath.mpf(d.degree.numerator) / d.degree.denominator) * phi(v)
                    assert mpmath.almosteq(phi(c * v), want, 1e-12, 1e-12)
        if d.infinity is not None:
            power = float(d.infinity)
            near, far = (np.array([float(phi(mpmath.mpf(c * v)) / mpmath.mpf(c) ** power) for v in domain(record)])
                         for c in (1e9, 1e11))
            np.testing.assert_allclose(near, far, rtol=1e-3, atol=1e-3 * np.abs(far).max())
            assert np.abs(far).max() > 0
        if d.degree is not None:
            assert d.degree == d.infinity


@each_record
def test_dtypes_stay_and_nothing_overflows(record):
    for d in derivatives(record)[:3]:
        for dtype in (np.float32, np.float64):
            x = domain(record).astype(dtype)
            y = d(x)
            assert y.dtype == dtype and y.shape == x.shape
            assert d(x.reshape(1, -1, 1)).shape == (1, len(x), 1)
            single = d(dtype(x[0]))
            assert np.float64(single) == pytest.approx(float(y[0]), rel=1e-6)
        assert type(d(float(x[0]))) is float
        if record.infinity is not None and record.infinity <= 1:
            wild = 1e30 * domain(record).astype(np.float32)  # warnings are errors here
            assert np.all(np.isfinite(d(wild))), d.name


@each_record
def test_large_arrays_agree_with_small_ones(record):
    x = np.tile(domain(record), 100)
    np.testing.assert_allclose(record(x), np.tile(record(domain(record)), 100), rtol=1e-14)


@each_record
def test_names_find_the_record(record):
    for d in derivatives(record):
        assert nonlinearity(d.name) is d or nonlinearity(d.name) == d
        assert nonlinearity(d.family, *d.params) == d
        assert is_nonlinearity(d.family)
        args = d.spelled("x").removeprefix(f"{d.family}(x").removesuffix(")")
        assert nonlinearity(d.family, *(p.strip() for p in args.split(",") if p.strip())) == d
        assert pickle.loads(pickle.dumps(d)) == d == copy.deepcopy(d)
        assert hash(d) == hash(nonlinearity(d.name))


@each_record
def test_jumps_are_kinks_and_points_of_discontinuity(record):
    for d in derivatives(record):
        assert set(d.jumps) <= set(d.kinks)
        for k in d.kinks:
            gap = abs(d(float(k) + 1e-9) - d(float(k) - 1e-9))
            assert (gap > 1e-6) == (k in d.jumps)


@each_record
def test_pieces_are_the_formula_and_pass_on_to_derivatives(record):
    x, made = domain(record), derivatives(record)
    assert all((d.pieces is None) == (record.pieces is None) for d in made)
    if record.pieces is not None:
        told = record.pieces
        for d in made:
            phi = exact(d)
            want = [float(phi(mpmath.mpf(v))) for v in x]
            np.testing.assert_allclose(values(d.pieces, x), want, rtol=1e-11, atol=1e-12, err_msg=d.name)
            np.testing.assert_allclose(values(told, x), want, rtol=1e-11, atol=1e-12, err_msg=d.name)
            told = derivative(told)
        assert told == {} or len(made) == ORDER + 1


def test_most_families_have_pieces():
    without = {r.family for r in RECORDS if r.pieces is None}
    assert without == {"gelu_tanh", "log", "power", "reciprocal", "rsqrt", "sigmoid", "silu", "softplus", "sqrt",
                       "tanh"}


@each_record
def test_growth(record):
    assert {d.growth for d in derivatives(record)} == {"exponential" if record.name == "exp" else "polynomial"}


def test_tails_do_not_cancel():
    assert nonlinearity("gelu")(-20.0) == pytest.approx(float(-20 * mpmath.ncdf(-20)), rel=1e-12)
    assert nonlinearity("d_tanh")(50.0) == pytest.approx(float(mpmath.sech(50) ** 2), rel=1e-12)
    assert nonlinearity("d_sigmoid")(-100.0) == pytest.approx(float(mpmath.exp(-100)), rel=1e-12)
    assert nonlinearity("softplus")(-100.0) == pytest.approx(float(mpmath.exp(-100)), rel=1e-12)


def test_families_are_listed_and_defaults_apply():
    assert {"hermite", "leaky_relu", "monomial", "power", "quantizer", "rsqrt"} <= {f.name for f in families()}
    assert nonlinearity("leaky_relu") is nonlinearity("leaky_relu", Fraction(1, 100))
    assert nonlinearity("rsqrt").degree == Fraction(-1, 2)
    assert nonlinearity("rsqrt", "1/100000").degree is None


def test_hermite_polynomials_are_orthogonal():
    z, w = np.polynomial.hermite_e.hermegauss(20)
    for j in range(1, 6):
        for k in range(1, 6):
            inner = np.sum(w * nonlinearity("hermite", j)(z) * nonlinearity("hermite", k)(z)) / np.sqrt(2 * np.pi)
            assert inner == pytest.approx(sympy.factorial(j) if j == k else 0, abs=1e-9)


def test_quantizer_has_its_levels():
    for n in (3, 4, 16):
        y = np.unique(nonlinearity("quantizer", n)(np.linspace(-3, 3, 10_001)))
        np.testing.assert_allclose(y, np.linspace(-1, 1, n), atol=1e-15)


@pytest.mark.parametrize("name, message", [
    ("rellu", r"no such nonlinearity.*\n.*relu"),
    ("hermite", r"needs parameters"),
    ("d_step", r"identically zero"),
])
def test_names_that_are_refused(name, message):
    with pytest.raises(ParseError, match=message):
        nonlinearity(name)


@pytest.mark.parametrize("args, message", [
    (("tanh", 2), "tanh has no parameters"),
    (("leaky_relu", 0.2), "exact rationals"),
    (("leaky_relu", "x"), "exact rationals"),
    (("leaky_relu", 1, 2), "too many or too few"),
])
def test_parameters_that_are_refused(args, message):
    with pytest.raises(ParseError, match=message):
        nonlinearity(*args)


@pytest.mark.parametrize("args, message", [
    (("leaky_relu", 0), "this is relu"), (("hermite", "1/2"), "whole number"), (("monomial", 0), "whole number"),
    (("quantizer", 2), "at least 3"), (("quantizer", 3, -1), "positive"), (("rsqrt", -1), "not negative"),
    (("power", 0), "other than 0"),
])
def test_parameters_out_of_range(args, message):
    with pytest.raises(RecordError, match=message):
        nonlinearity(*args)


@pytest.mark.parametrize("args", [
    ("hermite", 30), ("monomial", 16), ("power", 12), ("power", -12), ("power", "1/1000"), ("rsqrt", "1e-30"),
    ("rsqrt", "1e12"), ("d3_rsqrt", "1e-12"), ("quantizer", 4096), ("quantizer", 4, "1e-5"), ("quantizer", 4, 1000),
    ("leaky_relu", "1e-12"), ("leaky_relu", 100), ("d9_gelu_tanh",), ("d9_tanh",), ("d5_hermite", 12),
], ids=str)
def test_extreme_parameters_pass_their_own_checks(args):
    record = nonlinearity(*args)
    assert nonlinearity(record.name) == record


@pytest.mark.parametrize("name", ["d10_tanh", "d999999_tanh", "d0_tanh", "monomial(17)", "quantizer(1000000000)"])
def test_names_without_bounds_are_refused(name):
    with pytest.raises((ParseError, RecordError)):
        nonlinearity(name)


# ----------------------------------------------------------------------------------------- refused records

GOOD = {
    "name": "planted", "numpy": np.tanh, "slope": lambda x: 1 - np.tanh(x) ** 2, "derivative": "d_tanh",
    "parity": "odd", "taylor": (False, True, False, True, False, True, False), "infinity": Fraction(0),
    "sources": ("poole2016exponential",),
}


@pytest.mark.parametrize("wrong, message", [
    ({"slope": lambda x: 1 - np.tanh(x)}, r"'planted': derivative disagrees with finite differences at x = \[-3\.1373"),
    ({"slope": None}, "derivative disagrees"),
    ({"parity": "even"}, r"parity disagrees with the values, which show odd(.|\n)*declare parity='odd'"),
    ({"parity": None}, "parity disagrees"),
    ({"degree": Fraction(1)}, "degree disagrees with the values, which show None"),
    ({"infinity": Fraction(1)}, "infinity disagrees"),
    ({"infinity": None}, "infinity disagrees"),
    ({"taylor": (False, True, False, False, False, False, False)}, "taylor disagrees"),
    ({"taylor": None}, "taylor disagrees"),
    ({"sources": ()}, "no source"),
    ({"pieces": piece(0, 1)}, "pieces disagree with the values at x"),
    ({"jumps": (Fraction(0),)}, "a jump is a kink too"),
    ({"kinks": (Fraction(0),), "jumps": (Fraction(0),)}, "does not jump at x = 0"),
    ({"numpy": np.log}, "not finite"),
    ({"numpy": lambda x: 1.0}, "another shape"),
], ids=lambda p: next(iter(p)) if isinstance(p, dict) else "")
@pytest.mark.filterwarnings("ignore:invalid value")
def test_wrong_records_are_refused(wrong, message):
    with pytest.raises(RecordError, match=message):
        Nonlinearity(**GOOD | wrong)


def test_the_right_record_is_not_refused():
    assert Nonlinearity(**GOOD).partial(0) is nonlinearity("d_tanh")


def test_a_missing_degree_is_refused():
    with pytest.raises(RecordError, match="degree disagrees with the values, which show 1"):
        Nonlinearity(name="planted", numpy=np.abs, slope=np.sign, derivative="sign", parity="even",
                     infinity=Fraction(1), kinks=(Fraction(0),), sources=("cho2009kernel",))


def test_a_missing_jump_is_refused():
    with pytest.raises(RecordError, match=r"it jumps at x = 0(.|\n)*add 0 in jumps"):
        Nonlinearity(name="planted", numpy=np.sign, slope=None, derivative=None, parity="odd", degree=Fraction(0),
                     infinity=Fraction(0), kinks=(Fraction(0),), sources=("cho2009kernel",))


def test_a_wrong_derivative_record_is_refused_when_it_is_made():
    record = Nonlinearity(**GOOD | {"derivative": "sigmoid"})
    with pytest.raises(RecordError, match="its derivative's record disagrees with slope"):
        record.partial(0)


def test_a_name_is_registered_once():
    folder = Folder("nonlins", "nonlinearity")
    record = Nonlinearity(**GOOD)
    assert folder.add(record) is record is folder.add(record)
    with pytest.raises(RecordError, match="registered already"):
        folder.add(Nonlinearity(**GOOD | {"infinity": Fraction(0)}))
    with pytest.raises(RecordError, match="registered already"):
        register(Nonlinearity(**GOOD | {"name": "relu"}))


def test_loading_every_record_is_cheap_and_loads_no_symbolic_engine():
    code = """
import sys, time
import numpy
from tensorprog.atoms import registry
start = time.process_time()
registry.nonlinearities()
print(time.process_time() - start, [m for m in ("sympy", "scipy", "networkx", "matplotlib") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, loaded = out.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 0.5  # 0.04 on a quiet machine; the limit is for a loaded one
