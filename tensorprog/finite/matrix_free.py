r"""Products with a random matrix that is never formed, exact in distribution at every finite size.

A program sees G only through its uses ``G x`` and ``G^T y``. Keep an orthonormal basis Q of the right directions
used with the images G Q, and P of the left ones with G^T P. Given all earlier uses, G is known on span Q and
span P, and iid Gaussian between their complements (Gaussian conditioning). For a new x, its part in span Q is
known; for the rest r, with q = r/|r|,

    G q = P (G^T P)^T q + (1 - P P^T) g,      g fresh N(0, I),

and (q, G q) joins the basis. Uses of G^T exchange the two sides.

Source: yang2020matrix (the Gaussian conditioning lemma with which the Master Theorem is proved), run as a sampler.
"""

from __future__ import annotations

import math
from typing import Any

from tensorprog.finite.arrays import Arrays
from tensorprog.finite.draws import Draws, name_key

#: A residual is computed again if this share of the vector or less is left of it: then its rounding errors matter.
_LOSS = 0.5


class _Side:
    """One side's orthonormal directions, shape (k, size), and their images, (k, other); rows grow in place."""

    __slots__ = ("_directions", "_images", "arrays", "count", "other", "size")

    def __init__(self, arrays: Arrays, size: int, other: int, uses: int):
        self.arrays, self.size, self.other, self.count = arrays, size, other, 0
        capacity = min(max(uses, 1), size)
        # untouched rows cost no memory: the operating system commits a page when it is first written
        self._directions: Any = arrays.empty((capacity, size))
        self._images: Any = arrays.empty((capacity, other))

    @property
    def directions(self):
        return self._directions[: self.count]

    @property
    def images(self):
        return self._images[: self.count]

    @property
    def is_full(self) -> bool:
        return self.count == self.size

    def add(self, direction) -> None:
        """Append a unit vector; its image is written by ``last_images``."""
        if self.count == len(self._directions):
            self._directions, self._images = self._grown(self._directions), self._grown(self._images)
        self._directions[self.count] = direction
        self.count += 1

    def _grown(self, old):
        new = self.arrays.empty((min(2 * len(old), self.size), old.shape[1]))
        new[: len(old)] = old
        return new

    def set_last_images(self, images) -> None:
        self._images[self.count - len(images) : self.count] = images


class LazyGaussian:
    """An (m, n) matrix G of iid N(0, 1) whose products are drawn use by use, in any order of G and G^T.

    k uses cost O(k) vectors of memory and O(k^2) vector operations, in matrix-matrix form over the vectors of a
    block; nothing costs m*n. Vectors in the span of earlier ones (up to rounding) get the product that linearity
    demands; a vector that is not finite gets NaN.

    Args:
        shape: (m, n).
        draws: where fresh normals come from; the stream is keyed by ``name``, the side and the use.
        name: the matrix's name.
        uses: the numbers of products by G and by G^T to come, if known: the memory set aside.

    Example:
        >>> import numpy as np
        >>> G = LazyGaussian((1000, 2000), Draws(1000, seed=0), "G")
        >>> x, y = np.ones(2000), np.ones(1000)
        >>> Gx, Gty = G.apply(x[None], False)[0], G.apply(y[None], True)[0]
        >>> bool(abs(y @ Gx - Gty @ x) < 1e-8)                       # both are y^T G x
        True
        >>> bool(np.allclose(G.apply(3 * x[None], False), 3 * Gx))
        True
    """

    def __init__(self, shape: tuple[int, int], draws: Draws, name: str, *, uses: tuple[int, int] = (1, 1),
                 arrays: Arrays | None = None):
        self.arrays = arrays or Arrays(str(draws.dtype))
        m, n = shape
        self._draws, self._key = draws, name_key(name)
        self._sides = _Side(self.arrays, n, m, uses[0]), _Side(self.arrays, m, n, uses[1])
        self._tolerance = max(1e-12, 100 * self.arrays.eps)

    def apply(self, block, transposed: bool):
        """Return G x (or G^T y) for the rows of a block, shape (k, n) -> (k, m), or (k, m) -> (k, n)."""
        side, back = self._sides[transposed], self._sides[not transposed]
        norms = [self.arrays.norm(row) for row in block]
        live = [i for i, norm in enumerate(norms) if 0.0 < norm < math.inf]
        out = self.arrays.zeros((len(norms), side.other))
        for i, norm in enumerate(norms):
            if not math.isfinite(norm):
                out[i] = math.nan
        if not live:
            return out
        units = self.arrays.block([block[i] / norms[i] for i in live])
        known = side.count
        coefficients = self._extend(side, units)
        if side.count > known:
            side.set_last_images(self._draw(side, back, known, transposed))
        products = coefficients @ side.images
        for row, i in enumerate(live):
            out[i] = norms[i] * products[row]
        return out

    def _extend(self, side: _Side, units):
        """Grow the basis until it spans unit vectors; return their coefficients in it. Overwrites ``units``."""
        known = side.count
        table = self.arrays.zeros((len(units), known + len(units)))
        if known:
            first = units @ side.directions.T
            units -= first @ side.directions
            table[:, :known] = first
        for i in range(len(units)):
            rest = units[i]
            self._project(side, rest, table[i], known)
            left = self.arrays.norm(rest)
            if left <= _LOSS:  # twice is enough: relative to what is left, errors along the basis are now rounding
                self._project(side, rest, table[i], 0)
                left = self.arrays.norm(rest)
            if left > self._tolerance and not side.is_full:
                table[i, side.count] = left
                side.add(rest / left)
        return table[:, : side.count]

    @staticmethod
    def _project(side: _Side, rest, coefficients, start: int) -> None:
        basis = side.directions[start:]
        if len(basis):
            part = basis @ rest
            rest -= part @ basis
            coefficients[start : side.count] += part

    def _draw(self, side: _Side, back: _Side, known: int, transposed: bool):
        """Return the images of the directions added since ``known``."""
        fresh = [
            self.arrays.of(self._draws.fresh((side.other,), (*self._key, 2 + transposed, use)))
            for use in range(known, side.count)
        ]
        images = self.arrays.zeros((len(fresh), side.other)) if back.is_full else self.arrays.block(fresh)
        if back.count:
            images += (side.directions[known:] @ back.images.T - images @ back.directions.T) @ back.directions
        return images
