"""Spectra of random matrices: exact moments of matrix expressions, their densities, and freeness."""

from tensorprog.spectra.freeness import confirm_free as confirm_free
from tensorprog.spectra.freeness import free as free
from tensorprog.spectra.moments import Gram as Gram
from tensorprog.spectra.moments import eigenvalues as eigenvalues
from tensorprog.spectra.moments import moments as moments
from tensorprog.spectra.moments import singular_values as singular_values
from tensorprog.spectra.network import feedforward as feedforward
from tensorprog.spectra.network import jacobian as jacobian
from tensorprog.spectra.sample import confirm_spectrum as confirm_spectrum
from tensorprog.spectra.sample import sample_eigenvalues as sample_eigenvalues
