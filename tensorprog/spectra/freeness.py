r"""Free independence: alternating products of centred polynomials have vanishing traces.

Algebras are free if ``tau(a_1 b_1 a_2 b_2 ... a_r b_r) = 0`` whenever every ``a_i`` is in the first, every ``b_i`` in
the second, and all have trace 0. By linearity words in the generators, each minus its trace, are enough; tau is a
trace, so words that are rotations of each other have the same value, and ones of odd length follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.exponents.affine import Values
from tensorprog.finite.confirm import Confirmation
from tensorprog.gauss.chain import Number
from tensorprog.interp.scaling import Scaling
from tensorprog.program.build import Matrix
from tensorprog.program.program import Program
from tensorprog.spectra.moments import LinearMap, excerpt, is_symmetric, needs, scalar_limits, within
from tensorprog.spectra.sample import Realization, vanishing

#: More alternating words than this are not computed.
_MOST_WORDS = 400

Factor = tuple[int, tuple[bool, ...]]  # which of the two, and a word in it: True is its transpose
Word = tuple[Factor, ...]


@dataclass(frozen=True)
class Freeness:
    """Mixed moments of centred words, up to an order.

    Args:
        moments: "A B A B^2" -> ``tau`` of the product, every factor minus its own trace.
        order: the largest total degree.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, V = p.matrix("W", n, n), p.matrix("V", n, n)
        >>> free(W + W.T, V + V.T, 4).free, free(W + W.T, W.T @ W, 3).largest
        (True, ('A^2 B', Fraction(1, 1)))
    """

    moments: Mapping[str, Number]
    order: int

    @property
    def free(self) -> bool:
        """Whether every one of them vanishes: the two are free as far as this order shows."""
        return not any(x != 0 for x in self.moments.values())

    @property
    def largest(self) -> tuple[str, Number] | None:
        """The word whose moment is furthest from 0, and its moment; None if all vanish."""
        found = max(self.moments.items(), key=lambda item: abs(float(item[1])))
        return found if found[1] != 0 else None

    def __str__(self) -> str:
        if self.free:
            return f"free up to order {self.order}: {len(self.moments)} alternating moments vanish"
        assert self.largest is not None
        return f"not free: tau({self.largest[0]}) = {self.largest[1]}"


def free(A: Matrix | LinearMap, B: Matrix | LinearMap, order: int = 6, *, values: Values | None = None) -> Freeness:
    """Return the alternating moments of centred words in two matrix expressions: the two are free iff all vanish.

    Args:
        A, B: square matrices of one program, along one axis: weights ``W.T @ W``, activations ``diag(phi(W @ x))``.
            Of one that is not symmetric, words in it and its transpose are taken.
        order: the largest total degree.
        values: the unknown exponents of the program.

    Returns:
        ``Freeness``; of every word up to rotation its limit, exactly.

    Raises:
        ProgramError: they are not square along one axis of one program.
        NotCoveredError: too many words, or the theory does not cover the program.

    Example:
        >>> from tensorprog.program.build import apply, diag
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, x = p.matrix("W", n, n), p.vector("x", n)
        >>> D = diag(apply("relu", W @ x))                # activations of the same weights
        >>> print(free(W @ W.T, D, 4))
        free up to order 4: 7 alternating moments vanish

    Source: yang2020matrix (weights are free of activations); nica2006lectures, lecture 5.
    """
    if A.program is not B.program or len({A.rows, A.cols, B.rows, B.cols}) != 1:
        raise ProgramError(f"free({A}, {B})", ", ".join(f"{M.rows.name} x {M.cols.name}" for M in (A, B)),
                           "free independence is of square matrices along one axis of one program",
                           "multiply by a transpose: W.T @ W")
    both, words = (A, B), _words((A, B), order)
    singles = list(dict.fromkeys(f for word in words for f in word))
    names = [*needs(A), *needs(B)]
    # traces of order n^0 are subtracted; smaller ones vanish before they are
    first = _Products(excerpt(A.program, names), both)
    traces = {f: first.trace((f,), {}) for f in singles}
    scaling = Scaling(first.program, values)
    alive = {f for f, name in traces.items() if scaling.exponent(name) is not None and scaling.exponent(name) == 0}
    second = _Products(excerpt(A.program, names), both)
    centres = {f: second.program[second.trace((f,), {})] for f in singles if f in alive}
    scalars = {word: second.trace(word, centres) for word in words}
    found = scalar_limits(second.program.freeze(), scalars.values(), values=values)
    return Freeness({_spelled(word): found[name] for word, name in scalars.items()}, order)


class _Products:
    """Writes products of centred words applied to one random vector; suffixes are shared."""

    def __init__(self, program: Program, maps: tuple[Any, Any]):
        self.program = program
        self.maps = tuple(within(m, program) for m in maps)
        self.probe = program.vector(program.fresh("probe"), self.maps[0].rows)
        self._known: dict[tuple, Any] = {}

    def applied(self, word: Word, centres: Mapping[Factor, Any]) -> Any:
        """Return the product, times the random vector."""
        if not word:
            return self.probe
        key = (word, bool(centres))
        if key not in self._known:
            which, letters = word[0]
            start = v = self.applied(word[1:], centres)
            for transposed in reversed(letters):
                matrix = self.maps[which].T if transposed else self.maps[which]
                v = (matrix @ v)._variable()
            if word[0] in centres:
                v = (v - centres[word[0]] * start)._variable()
            self._known[key] = v
        return self._known[key]

    def trace(self, word: Word, centres: Mapping[Factor, Any]) -> str:
        """Return the scalar that is the trace of a product."""
        return self.program.mean(self.probe * self.applied(word, centres)).name


def _words(maps: tuple[Any, Any], order: int) -> list[Word]:
    """Return the alternating words up to a degree, one of every class of rotations."""
    alphabets = [(False,) if is_symmetric(m) else (False, True) for m in maps]
    found: dict[Word, None] = {}
    for degree in range(2, order + 1):
        for word in _alternating(alphabets, degree, 0):
            rotations = [word[i:] + word[:i] for i in range(0, len(word), 2)]
            if word == min(rotations):
                found[word] = None
                if len(found) > _MOST_WORDS:
                    raise NotCoveredError("free", order, f"more than {_MOST_WORDS} alternating words", "use a smaller "
                                          "order, or symmetric matrices")
    return list(found)


def _alternating(alphabets: list, degree: int, which: int) -> Iterator[Word]:
    """Yield words of even length that start with a factor of one side and alternate."""
    if degree == 0 and which == 0:
        yield ()
    for size in range(1, degree + 1):
        for letters in product(alphabets[which], repeat=size):
            for rest in _alternating(alphabets, degree - size, 1 - which):
                yield ((which, letters), *rest)


def _spelled(word: Word) -> str:
    parts = []
    for which, letters in word:
        name = "AB"[which]
        plain = not any(letters)
        parts.append(name + (f"^{len(letters)}" if len(letters) > 1 else "") if plain else
                     "".join(name + "'" * t for t in letters))
    return " ".join(parts)


def confirm_free(A: Matrix | LinearMap, B: Matrix | LinearMap, order: int = 4, *,
                 widths: Iterable[int] = (8, 16, 32, 64, 128, 256), seeds: int = 64,
                 values: Values | None = None) -> Confirmation:
    """Measure the alternating moments of ``free`` at finite widths, by the matrices' entries: do they tend to 0?

    Args:
        A, B, order, values: as for ``free``.
        widths, seeds: the scales, and how many seeds at each.

    Returns:
        A ``Confirmation``, one check a word: refuted if any moment does not vanish.

    Example:
        >>> p = Program()
        >>> n = p.dim("n")
        >>> W, V = p.matrix("W", n, n), p.matrix("V", n, n)
        >>> A, B, widths = W.T @ W, V.T @ V, (8, 16, 32, 64, 128)
        >>> [confirm_free(A, M, 2, widths=widths, seeds=200).verdict.name for M in (B, A)]
        ['CONFIRMED', 'REFUTED']
    """
    words, widths = _words((A, B), order), tuple(widths)
    samples: dict[str, dict[int, list[float]]] = {_spelled(w): {} for w in words}
    for n in widths:
        rows = [_measured(A, B, words, n, seed, values) for seed in range(seeds)]
        for i, word in enumerate(words):
            samples[_spelled(word)][n] = [row[i] for row in rows]
    checks = tuple(vanishing(f"tau({name})", x, checks=len(words)) for name, x in samples.items())
    return Confirmation(checks, widths, (seeds,) * len(widths))


def _measured(A, B, words: list[Word], n: int, seed: int, values: Values | None) -> list[float]:
    drawn = Realization(A.program, [*needs(A), *needs(B)], n, seed, values)
    maps, known = [drawn.dense(M) for M in (A, B)], {}
    size = len(maps[0])

    def centred(factor: Factor) -> np.ndarray:
        if factor not in known:
            which, letters = factor
            x = np.linalg.multi_dot([np.eye(size), *(maps[which].T if t else maps[which] for t in letters)])
            known[factor] = x - np.eye(size) * (np.trace(x) / size)
        return known[factor]

    out = []
    for word in words:
        left, right = np.eye(size), centred(word[-1])
        for factor in word[:-1]:
            left = left @ centred(factor)
        out.append(float(np.einsum("ij,ji->", left, right)) / size)
    return out


__all__ = ["Freeness", "confirm_free", "free"]
