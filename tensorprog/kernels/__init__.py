"""Kernels of infinitely wide networks: covariances, tangent kernels, mean-field maps, regression."""

from typing import TYPE_CHECKING, Any

from tensorprog.kernels.kernel import Kernel as Kernel
from tensorprog.kernels.kernel import nngp as nngp
from tensorprog.kernels.kernel import ntk as ntk

if TYPE_CHECKING:
    from tensorprog.kernels.batchnorm import BatchNorm as BatchNorm
    from tensorprog.kernels.meanfield import MeanField as MeanField
    from tensorprog.kernels.meanfield import edge_of_chaos as edge_of_chaos
    from tensorprog.kernels.regression import Regression as Regression

#: What a kernel does not need is loaded when it is asked for.
_LATER = {"BatchNorm": "batchnorm", "MeanField": "meanfield", "edge_of_chaos": "meanfield", "Regression": "regression"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
