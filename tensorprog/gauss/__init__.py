"""Gaussian expectations: closed form, then quadrature, then sampling, with the rung and the error in the result."""
