"""Sphinx: Markdown pages and notebooks (MyST-NB), executed at every build; a failing cell or a warning is fatal."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

# the kernels of the notebooks import this checkout too
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])

import tables  # noqa: E402  (this folder's)

import tensorprog  # noqa: E402

project = "tensorprog"
author = "The tensorprog maintainers"
copyright = "2026, " + author
release = tensorprog.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "jupyter_execute", "reference/generated", "img", "howto/kernels_speed_table.md"]
html_theme = "furo"
html_title = f"tensorprog {release}"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_render_markdown_format = "myst"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures say it already
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def setup(app):
    """Write the tables of the registries before the pages that include them are read."""
    app.connect("builder-inited", lambda _: tables.write(HERE / "reference" / "generated"))
