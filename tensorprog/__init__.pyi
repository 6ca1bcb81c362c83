"""The public names, each once; tensorprog/__init__.py reads this list when one is first asked for."""

from collections.abc import Callable

from tensorprog import errors as errors
from tensorprog import kernels as kernels
from tensorprog import nets as nets
from tensorprog import spectra as spectra
from tensorprog._version import __version__ as __version__
from tensorprog.atoms.custom import from_callable as from_callable
from tensorprog.atoms.custom import from_sympy as from_sympy
from tensorprog.atoms.nonlinearity import Nonlinearity as Nonlinearity
from tensorprog.finite.converge import converge as converge
from tensorprog.finite.fit import Verdict as Verdict
from tensorprog.finite.limit import limit as limit
from tensorprog.finite.network import confirm as confirm
from tensorprog.interp.scaling import Scaling as Scaling
from tensorprog.interp.show import show as show
from tensorprog.interp.unroll import unroll as unroll
from tensorprog.program.build import Value
from tensorprog.program.program import Program as Program
from tensorprog.program.text import parse as parse
from tensorprog.program.text import to_text as to_text
from tensorprog.scaling.classify import classify as classify
from tensorprog.scaling.derive import derive as derive
from tensorprog.scaling.explain import explain as explain

# every registered nonlinearity, by its name
def __getattr__(name: str) -> Callable[..., Value]: ...
