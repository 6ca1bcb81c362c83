"""Kernels of infinitely wide networks: covariances, tangent kernels, mean-field maps, regression."""

from tensorprog.kernels.kernel import Kernel as Kernel
from tensorprog.kernels.kernel import nngp as nngp
from tensorprog.kernels.kernel import ntk as ntk
