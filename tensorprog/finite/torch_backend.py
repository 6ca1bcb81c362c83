"""torch arrays behind the same executor: ``run(..., backend="torch")`` or ``backend="torch:cuda"``.

Random numbers are numpy's, drawn from the same streams, so both backends run the same matrices. Functions and
optimizer directions are evaluated by their numpy records: without a copy on the CPU, with one elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorprog.errors import MissingExtraError, RunError
from tensorprog.finite.arrays import Arrays


def torch_arrays(dtype: str, device: str = "cpu") -> Arrays:
    """Return torch's arrays on a device.

    Raises:
        MissingExtraError: if torch is not installed.
        RunError: if the device does not exist.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise MissingExtraError.of("torch", "torch", "run(..., backend='torch')") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"run(..., backend='torch:{device}')", device, reason, "use 'torch'") from None
    return TorchArrays(dtype, device)


class TorchArrays(Arrays):
    """torch tensors on one device; made by ``torch_arrays``."""

    name = "torch"

    def __init__(self, dtype: str, device: str):
        import torch  # pyright: ignore[reportMissingImports]  # an extra

        super().__init__(dtype)
        self._torch, self._device, self._type = torch, device, getattr(torch, str(self.dtype))

    def of(self, x: np.ndarray):
        # from_numpy warns of shared draws, which are read-only; no run writes to its inputs
        return self._torch.from_dlpack(x).to(self._device)

    def numpy(self, x) -> np.ndarray:
        return x.cpu().numpy()

    def full(self, size: int, value: float):
        return self._torch.full((size,), value, dtype=self._type, device=self._device)

    def empty(self, shape: tuple[int, ...]):
        return self._torch.empty(shape, dtype=self._type, device=self._device)

    def zeros(self, shape: tuple[int, ...]):
        return self._torch.zeros(shape, dtype=self._type, device=self._device)

    def block(self, vectors: Sequence):
        return vectors[0][None] if len(vectors) == 1 else self._torch.stack(tuple(vectors))

    def slice_rows(self, count: int, shape: tuple[int, int]) -> int:
        return 0  # torch spreads a product over its own threads

    def product(self, block, matrix, transposed: bool):
        return block @ (matrix if transposed else matrix.T)

    def dot(self, x, y) -> float:
        return float(self._torch.dot(x, y))

    def sum(self, x) -> float:
        return float(x.sum(dtype=self._torch.float64))

    def largest(self, x) -> float:
        return float(x.abs().max()) if x.numel() else 0.0
