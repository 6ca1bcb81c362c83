"""Kernels of infinitely wide networks: covariances, tangent kernels, mean-field maps, regression."""
