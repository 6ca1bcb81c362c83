"""What the values of a function say about it: the numeric checks behind every nonlinearity's record.

Each ``find_*`` reads one fact off the values; ``check`` compares it with the declared one, so a record can neither
claim too much nor leave out what it has.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from tensorprog.atoms import pieces as pc
from tensorprog.errors import RecordError

if TYPE_CHECKING:
    from tensorprog.atoms.nonlinearity import Nonlinearity

Array = Callable[[np.ndarray], np.ndarray]

#: Irregular on purpose: kinks of real nonlinearities sit at round numbers.
POINTS = np.array([0.137, 0.3719, 0.6243, 0.8771, 1.2137, 1.7719, 2.3571, 3.1373])
#: Domains that hold no negative numbers.
HALF = ("positive", "nonnegative")
STEP = 1e-3
ORDERS = 7
_STENCIL = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
_WEIGHTS = np.array([-1.0, 9.0, -45.0, 45.0, -9.0, 1.0]) / 60


def points(domain: str, kinks: tuple[Fraction, ...] = ()) -> np.ndarray:
    """Return the points at which a record is checked: inside its domain, away from its kinks."""
    x = POINTS if domain in HALF else np.concatenate([-POINTS[::-1], POINTS])
    for k in kinks:
        x = x[np.abs(x - float(k)) > 4 * STEP]
    return x


def rescaled(fn: Array, unit: float) -> Array:
    """Return u -> fn(unit * u)."""
    return fn if unit == 1 else lambda u: fn(unit * u)


def difference(fn: Array, x: np.ndarray) -> np.ndarray:
    """Return the derivative by central differences of order 6 (error near 1e-12)."""
    return (fn(x[:, None] + STEP * _STENCIL) @ _WEIGHTS) / STEP


def find_parity(fn: Array, domain: str) -> Literal["odd", "even"] | None:
    """Return the parity that the values show."""
    if domain in HALF:
        return None
    plus, minus = fn(POINTS), fn(-POINTS)
    scale = 1e-9 * (np.abs(plus) + np.abs(minus)) + 1e-12
    if np.all(np.abs(plus - minus) <= scale):
        return "even"
    return "odd" if np.all(np.abs(plus + minus) <= scale) else None


def find_degree(fn: Array, domain: str, guess: Fraction | None = None) -> Fraction | None:
    """Return d with fn(c x) = c^d fn(x) for c > 0; candidates are ``guess`` and rationals of denominator up to 12."""
    x = points(domain)
    y, y2, y3 = fn(x), fn(2 * x), fn(x / 3)
    big = np.argmax(np.abs(y))
    if y[big] == 0 or y2[big] / y[big] <= 0 or not np.all(np.isfinite([y, y2, y3])):
        return None
    d = guess if guess is not None else Fraction(float(np.log2(y2[big] / y[big]))).limit_denominator(12)
    for c, value in ((2.0, y2), (1 / 3, y3)):
        if not np.allclose(value, c ** float(d) * y, rtol=1e-9, atol=1e-12):
            return None
    return d


def find_infinity(fn: Array, domain: str, guess: Fraction | None = None) -> Fraction | None:
    """Return k such that fn(c x)/c^k converges to a nonzero function as c grows; None if no k shows."""
    x = points(domain)
    with np.errstate(all="ignore"):
        for scales, denominator in (((1e4, 1e6, 1e8), 12), ((60.0, 120.0, 220.0), 2), ((30.0, 60.0, 110.0), 2)):
            values = [fn(c * x) for c in scales]
            # A formula that overflows into inf/inf shows its power only before it does.
            if np.all(np.isfinite(values[2])):
                return _power(values, scales, guess, denominator)
    return None


def _power(values, scales, guess: Fraction | None, denominator: int) -> Fraction | None:
    sizes = [float(np.max(np.abs(v))) for v in values]
    if not all(np.isfinite(s) and s > 1e-250 for s in sizes):
        return None
    rate = np.log(sizes[2] / sizes[1]) / np.log(scales[2] / scales[1])
    k = guess if guess is not None else Fraction(float(rate)).limit_denominator(denominator)
    with np.errstate(all="ignore"):
        limits = [v / np.float64(c) ** float(k) for v, c in zip(values, scales, strict=True)]
    top = float(np.max(np.abs(limits[2])))
    same = all(np.allclose(v, limits[2], rtol=2e-2, atol=2e-2 * top) for v in limits[:2])
    return k if same and top > 1e-250 else None


@cache
def _fit() -> tuple[np.ndarray, np.ndarray]:
    # Chebyshev nodes: the interpolating polynomial's coefficients are the Taylor ones up to rho^17.
    nodes = np.cos(np.pi * (np.arange(17) + 0.5) / 17)
    return nodes, np.linalg.inv(np.vander(nodes, increasing=True))[:ORDERS]


def find_taylor(fn: Array, radius: float = 0.4) -> tuple[bool, ...] | None:
    """Return which of the first Taylor coefficients at 0 are nonzero; None if no polynomial fits: not smooth."""
    nodes, inverse = _fit()
    x = radius * nodes
    y = fn(x)
    size = float(np.max(np.abs(y)))
    if not np.isfinite(size):
        return None
    coefs = inverse @ y
    # A smooth function is its own Taylor polynomial up to a remainder of order r^7 near zero; a kink is not.
    small = 0.1 * x
    rest = fn(small) - np.vander(0.1 * nodes, ORDERS, increasing=True) @ coefs
    if np.max(np.abs(rest)) > 1e-5 * max(size, 1e-30):
        return None
    return tuple(bool(abs(c) > 1e-7 * size) for c in coefs)


@cache
def growth(record: Nonlinearity) -> pc.Growth:
    """Return the growth at infinity: a power's by ``infinity`` or the pieces, else that which the values show."""
    if record.infinity is not None or record.pieces is not None and pc.growth(record.pieces) == "polynomial":
        return "polynomial"
    return find_growth(rescaled(record.numpy, float(record.scale)), record.domain)


def find_growth(fn: Array, domain: str) -> pc.Growth:
    """Return how fast the logarithm of the largest value grows, up to where the values overflow.

    With M(r) = max log |fn(x)| at |x| near r: steps M(2r) - M(r) stay bounded for polynomials (here: of degree up to
    60); M(2r) - 2 M(r) = O(log r) for exponentials, and grows like M itself for anything faster.
    """
    near = np.linspace(0.75, 1.0, 16)
    radii = 2.0 ** np.arange(-20, 41)
    x = radii[:, None] * (near if domain in HALF else np.concatenate([-near, near]))
    with np.errstate(all="ignore"):
        # A few rows at a time: values of few points need no scipy.
        y = np.concatenate([np.abs(fn(rows.ravel()).reshape(rows.shape)) for rows in np.array_split(x, 8)])
        tops = np.log(np.maximum(np.max(y, axis=1), 1.0))
    last = int(np.argmin(np.isfinite(tops))) - 1 if not np.all(np.isfinite(tops)) else len(radii) - 1
    m = np.concatenate([np.zeros(4), tops[:last + 1]])
    if m[-1] - m[-2] <= 60 * np.log(2.0):
        return "polynomial"
    excess, before = m[-1] - 2 * m[-2], m[-2] - 2 * m[-3]
    return "faster" if excess > 1 and excess > 1.5 * before else "exponential"


def check(record: Nonlinearity) -> None:
    """Raise RecordError at the first declared fact that the values contradict."""
    say = _refusal(record)
    if not record.sources:
        raise say((), "no source", "add a key of docs/refs.bib to sources")
    # Everything is checked in units of the record's scale: u = x / scale.
    unit, kinks = float(record.scale), tuple(k / record.scale for k in record.kinks)
    fn, u = rescaled(record.numpy, unit), points(record.domain, kinks)
    x, y = unit * u, fn(u)
    if np.shape(y) != x.shape or not np.all(np.isfinite(y)):
        raise say(y, f"not finite, or of another shape, at x = {x}", "return one finite value a coordinate")
    slope = np.broadcast_to(record.slope(x), x.shape) if record.slope is not None else np.zeros_like(x)
    seen = difference(fn, u) / unit
    bad = ~np.isclose(slope, seen, rtol=1e-6, atol=1e-7 * max(1e-300, float(np.max(np.abs(y)))) / unit)
    if np.any(bad):
        raise say(slope[bad], f"derivative disagrees with finite differences at x = {x[bad]}",
                  f"there they are {seen[bad]}; name its kinks if it has any")
    _check_jumps(record, say)
    _check_pieces(record, x, y, say)
    for fact, found in (
        ("parity", find_parity(fn, record.domain)),
        ("degree", find_degree(fn, record.domain, record.degree)),
        ("infinity", find_infinity(fn, record.domain, record.infinity)),
        ("taylor", taylor_at(fn, record.domain, kinks)),
    ):
        declared = getattr(record, fact)
        if declared != found:
            raise say(declared, f"{fact} disagrees with the values, which show {found} (checked at x = {x})",
                      f"declare {fact}={found!r}, or correct the function")


def taylor_at(fn: Array, domain: str, kinks: tuple[Fraction, ...]) -> tuple[bool, ...] | None:
    """Return ``find_taylor`` in a disk as large as the domain and the nearest kink allow."""
    if domain == "nonnegative":
        # 1/sqrt(x + eps) is smooth around 0 in a disk as small as eps.
        with np.errstate(all="ignore"):
            found = (find_taylor(fn, 0.4 * 10.0**-j) for j in range(16))
            return next((t for t in found if t is not None), None)
    if domain != "real":
        return None
    nearest = min((abs(float(k)) for k in kinks), default=1.0)
    return find_taylor(fn, min(0.4, 0.8 * nearest)) if nearest else None


def jumps_at(fn: Array, point: Fraction, unit: float = 1.0) -> bool:
    """Return whether the function is discontinuous at the point."""
    left, right = fn(float(point) + unit * np.array([-1e-9, 1e-9]))
    return bool(abs(right - left) > 1e-6)


def _check_jumps(record: Nonlinearity, say) -> None:
    if set(record.jumps) - set(record.kinks):
        raise say(record.jumps, "a jump is a kink too", "add it to kinks")
    for k in record.kinks if record.domain == "real" else ():
        if jumps_at(record.numpy, k, float(record.scale)) != (k in record.jumps):
            verb, fix = ("does not jump", "remove") if k in record.jumps else ("jumps", "add")
            raise say(record.jumps, f"it {verb} at x = {k}", f"{fix} {k} in jumps")


def _check_pieces(record: Nonlinearity, x, y, say) -> None:
    if record.pieces is None:
        return
    told = pc.values(record.pieces, x)
    bad = ~np.isclose(told, y, rtol=1e-9, atol=1e-10 * float(np.max(np.abs(y))))
    if np.any(bad):
        raise say(told[bad], f"pieces disagree with the values at x = {x[bad]}", f"there they are {y[bad]}")
    seen = find_growth(rescaled(record.numpy, float(record.scale)), record.domain)
    order = ("polynomial", "exponential", "faster")  # exp(x) step(-x) grows less than its pieces, never more
    if order.index(seen) > order.index(pc.growth(record.pieces)):
        raise say(pc.growth(record.pieces), f"pieces disagree with the values, whose growth is {seen}",
                  "correct the pieces")


def check_derivative(record: Nonlinearity, made: Nonlinearity | None) -> None:
    """Raise RecordError if the record ``made`` is not the derivative that ``record`` declares."""
    x = float(record.scale) * points(record.domain, tuple(k / record.scale for k in record.kinks))
    slope = record.slope(x) if record.slope is not None else np.zeros_like(x)
    value = np.zeros_like(x) if made is None else made(x)
    if not np.allclose(value, slope, rtol=1e-6, atol=1e-7 * float(np.max(np.abs(slope)))):
        raise _refusal(record)(getattr(made, "name", None), f"its derivative's record disagrees with slope at x = {x}",
                               "name the record of its derivative")


def _refusal(record: Nonlinearity):
    def say(value, reason: str, fix: str) -> RecordError:
        return RecordError(f"nonlinearity {record.name!r}", value, reason, fix)

    return say
