"""Spectra of random matrices: exact moments of matrix expressions, their densities, and freeness."""
