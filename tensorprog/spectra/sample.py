"""Matrix expressions at finite width, by their entries: eigenvalues to compare a spectrum with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tensorprog.errors import NotCoveredError, RunError
from tensorprog.exponents.affine import Values
from tensorprog.finite.confirm import Check, Confirmation
from tensorprog.finite.draws import Draws
from tensorprog.finite.execute import matrix_shape
from tensorprog.finite.fit import Verdict, fit_exponent
from tensorprog.finite.numpy_backend import run
from tensorprog.program.build import Matrix
from tensorprog.program.instructions import Constant, Input, MatMul, MatrixType, Moment, Nonlin, Normal
from tensorprog.program.program import Program, spell
from tensorprog.spectra.density import Spectrum
from tensorprog.spectra.moments import Gram, LinearMap, excerpt, is_symmetric, needs
from tensorprog.spectra.network import Jacobian

#: Widths at which spectra are compared: eigenvalues cost n^3.
WIDTHS = (8, 16, 32, 64, 128, 256, 512)
#: What vanishes has a slope of at most -1/2; one whose interval ends here vanishes, from here on it does not.
_ROOT, _FALLS, _STAYS = Fraction(-1, 2), -0.05, -0.25


class Realization:
    """One draw of a program's matrices at scale n, as arrays; the vectors are those of ``run`` with the same seed.

    Args:
        program: what the maps belong to; ``names``: the variables that they need.
        n, seed, values: as for ``run``.
    """

    def __init__(self, program: Program, names: Iterable[str], n: int, seed: int = 0, values: Values | None = None):
        self.program, self.values = excerpt(program, names), values or {}
        self.sizes, self.draws = program.sizes(n), Draws(n, seed)
        vectors = [x.out for x in self.program.lines if not isinstance(self.program.type_of(x.out), MatrixType)]
        self.known: dict[str, Any] = {}
        if vectors:
            done = run(self.program, n, seed, values=values, method="dense", keep=vectors, draws=self.draws)
            self.known = {name: done[name] for name in vectors}

    def entries(self, name: str) -> np.ndarray:
        """Return a matrix of the program, (rows, columns)."""
        line, shape = self.program.line_of(name), matrix_shape(self.program, name, self.sizes)
        if isinstance(line, Input) and isinstance(line.law, Constant):
            return np.full(shape, line.law.value.at(self.sizes, self.values))
        if not isinstance(line, Input) or not isinstance(line.law, Normal):
            raise NotCoveredError(spell(line), name, "only random matrices are drawn by their entries",
                                  "take a matrix at initialization")
        mean, variance = (x.at(self.sizes, self.values) for x in (line.law.mean, line.law.variance))
        return mean + variance**0.5 * self.draws.normal(name, shape)

    def dense(self, matrix: Matrix | LinearMap) -> np.ndarray:
        """Return a map by its entries, (rows, columns)."""
        if isinstance(matrix, Gram):
            root = self.dense(matrix.of)
            return root.T @ root
        if isinstance(matrix, Jacobian):
            forward = self._jacobian(matrix)
            return forward.T if matrix.transposed else forward
        if not isinstance(matrix, Matrix):
            raise RunError(str(matrix), type(matrix).__name__, "only expressions of matrices and Jacobians have "
                           "entries", "write it with matrices of a program")
        shape = (self.sizes[matrix.rows.name], self.sizes[matrix.cols.name])
        total = np.zeros(shape)
        for coef, scalars, word in matrix.parts:
            part: Any = None
            for letter in reversed(word):
                if letter.diagonal:
                    x = self.known[letter.name]
                    part = np.diag(x) if part is None else x[:, None] * part
                else:
                    w = self.entries(letter.name)
                    w = w.T if letter.transposed else w
                    part = w if part is None else w @ part
            front = coef.at(self.sizes, self.values) * np.prod([self.known[s] ** k for s, k in scalars])
            total += front * (np.eye(*shape) if part is None else part)
        return total

    def _jacobian(self, J: Jacobian) -> np.ndarray:
        """Return the chain rule by entries: rows of tangents are the coordinates, columns those of ``wrt``."""
        within = J.within(self.program)
        moved: dict[str, Any] = {J.wrt: np.eye(self.sizes[self.program.dim_of(J.wrt).name])}
        for line in within._lines()[0]:
            if isinstance(line, MatMul):
                w = self.entries(line.matrix)
                moved[line.out] = (w.T if line.transposed else w) @ moved[line.vector]
            elif isinstance(line, Nonlin):
                args, total = [self.known[a] for a in line.args], 0.0
                for i, a in enumerate(line.args):
                    slope = line.fn.partial(i) if a in moved else None
                    if slope is not None:
                        total = total + np.reshape(slope.evaluate(self.sizes, self.values, *args), (-1, 1)) * moved[a]
                moved[line.out] = total
            elif isinstance(line, Moment):
                args, total = [self.known[a] for a in line.args], 0.0
                for i, a in enumerate(line.args):
                    if a in moved:
                        others = np.prod([np.ones_like(args[i]), *args[:i], *args[i + 1:]], axis=0)
                        total = total + others[None, :] @ moved[a]
                moved[line.out] = total / (len(args[0]) if line.mean else 1)
        return moved[J.of]


def sample_eigenvalues(matrix: Matrix | LinearMap, n: int, seed: int = 0, *,
                       values: Values | None = None) -> np.ndarray:
    """Return the eigenvalues of a symmetric matrix expression at scale n, in ascending order.

    Args:
        matrix: symmetric as an expression (``Gram(M)`` for squared singular values).
        n, seed, values: as for ``run``.

    Raises:
        RunError: it is not symmetric. NotCoveredError: it contains an optimizer's update.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W = p.matrix("W", n, n, variance=n**-1 / 2)
        >>> x = sample_eigenvalues(W + W.T, 200)
        >>> len(x), bool(abs(x).max() < 2.2)
        (200, True)
    """
    if not is_symmetric(matrix):
        raise RunError(f"eigenvalues of {matrix}", str(matrix), "this matrix is not symmetric as it is written",
                       "take Gram(M), or write it symmetrically")
    drawn = Realization(matrix.program, needs(matrix), n, seed, values)
    if isinstance(matrix, Gram):
        root = drawn.dense(matrix.of)
        squares = np.linalg.svd(root, compute_uv=False) ** 2
        return np.sort(np.concatenate([squares, np.zeros(root.shape[1] - len(squares))]))
    return np.linalg.eigvalsh(drawn.dense(matrix))


def distance(eigenvalues: np.ndarray, law: Spectrum) -> float:
    """Return the Kolmogorov-Smirnov distance of eigenvalues from a spectrum.

    Example:
        >>> from tensorprog.spectra.density import spectrum
        >>> round(distance(np.array([-1.0, 1.0]), spectrum([1, 0, 1, 0, 2, 0, 5, 0, 14])), 3)   # cdf(-1) = 0.196
        0.304
    """
    x = np.sort(eigenvalues)
    scale = max(np.abs(x).max(), *(abs(edge) for part in law.support for edge in part), 1e-300)
    for place, _ in law.atoms:  # eigenvalues at an atom are there up to rounding
        x = np.where(np.abs(x - place) < 1e-9 * scale, place, x)
    steps = np.arange(len(x) + 1) / len(x)
    # ties count once: the empirical cdf just below a point has none of them
    upper = steps[np.searchsorted(x, x, side="right")] - law.cdf(x)
    lower = law.cdf(np.nextafter(x, -np.inf)) - steps[np.searchsorted(x, x, side="left")]
    return float(max(upper.max(), lower.max(), 0.0))


def confirm_spectrum(matrix: Matrix | LinearMap, law: Spectrum, widths: Iterable[int] = WIDTHS, seeds: int = 64, *,
                     values: Values | None = None) -> Confirmation:
    """Compare eigenvalues at finite widths with a spectrum: does their distance from it vanish as the width grows?

    A law that differs by less than the distance at the largest width is not told from the right one.

    Args:
        matrix: symmetric; ``law``: what its eigenvalues should tend to.
        widths, seeds: the scales, and how many seeds at each.
        values: the unknown exponents of the program.

    Returns:
        A ``Confirmation`` that the Kolmogorov-Smirnov distance vanishes like n^(-1/2) or faster.

    Example:
        >>> from tensorprog.spectra.moments import eigenvalues
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, V = p.matrix("W", n, n, variance=n**-1 / 2), p.matrix("V", n, n)
        >>> law = eigenvalues(W + W.T, 8)
        >>> [confirm_spectrum(M, law, (8, 16, 32, 64, 128)).verdict.name for M in (W + W.T, V.T @ V)]
        ['CONFIRMED', 'REFUTED']
    """
    return judge_spectrum({n: [sample_eigenvalues(matrix, n, s, values=values) for s in range(seeds)] for n in widths},
                          law)


def judge_spectrum(samples: Mapping[int, Sequence[np.ndarray]], law: Spectrum) -> Confirmation:
    """Return what eigenvalues of several seeds at several widths say of a spectrum: see ``confirm_spectrum``.

    Args:
        samples: width -> the eigenvalues of every seed.

    Example:
        >>> from tensorprog.spectra.density import spectrum
        >>> rng = np.random.default_rng(0)
        >>> samples = {n: rng.uniform(0, 1, (100, n)) for n in (8, 32, 128, 512, 2048, 8192)}
        >>> laws = [spectrum([Fraction(a**k, k + 1) for k in range(16)]) for a in (1, 2)]      # uniform on [0, a]
        >>> [judge_spectrum(samples, law).verdict.name for law in laws]
        ['CONFIRMED', 'REFUTED']
    """
    distances = {n: [distance(x, law) for x in rows] for n, rows in samples.items()}
    check = vanishing("Kolmogorov-Smirnov distance", distances, law.error)
    return Confirmation((check,), tuple(samples), tuple(len(rows) for rows in samples.values()))


def vanishing(what: str, samples: Mapping[int, Sequence[float]], error: float = 0.0, checks: int = 1) -> Check:
    """Return the check that sizes at several widths vanish like n^(-1/2) or faster.

    Confirmed: the interval of their slope ends before n^0. Refuted: the outer interval begins half-way to it or later,
    and the inner one does without the smaller third of the widths.

    Args:
        what: their name; ``samples``: width -> one value a seed; ``checks``: how many are judged together.
        error: how well zero is known: so much of every size says nothing.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noise = {n: rng.standard_normal(1000) for n in (16, 32, 64, 128, 256, 512, 1024)}
        >>> [vanishing("x", {n: n**e * z for n, z in noise.items()}).verdict.name for e in (-1, -0.5, 0)]
        ['CONFIRMED', 'CONFIRMED', 'REFUTED']
    """
    sizes = {n: [max(abs(float(x)) - error, 0.0) for x in xs] for n, xs in samples.items()}
    fit = fit_exponent(sizes, checks=checks)
    if fit.is_zero:
        return Check(what, _ROOT, fit, Verdict.CONFIRMED, "Every size is zero, as far as it is known.")
    if fit.high < _FALLS:
        return Check(what, _ROOT, fit, Verdict.CONFIRMED, Verdict.CONFIRMED.value)
    large = sorted(sizes)[-max(5, len(sizes) - len(sizes) // 3):]
    if fit.outer[0] > _STAYS and fit_exponent({n: sizes[n] for n in large}).low > _STAYS:
        return Check(what, _ROOT, fit, Verdict.REFUTED, "It does not vanish.")
    return Check(what, _ROOT, fit, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE.value)


__all__ = ["Realization", "confirm_spectrum", "distance", "judge_spectrum", "sample_eigenvalues", "vanishing"]
