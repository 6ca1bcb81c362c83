"""`import tensorprog` stays light, and its public names are one list."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import tensorprog as tp

HEAVY = ("torch", "matplotlib", "scipy", "sympy", "lark", "networkx", "rich", "typer")
ROOT = Path(tp.__file__).parent


def loaded_by(statement: str) -> set[str]:
    """Return the heavy packages that a statement loads in a fresh interpreter."""
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}} & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy():
    assert loaded_by("import tensorprog") == set()


def test_names_load_nothing_heavy():
    assert loaded_by("import tensorprog as tp; tp.derive(tp.nets.mlp()); tp.relu; tp.Program; tp.nets") == set()


def test_kernels_load_regression_and_mean_fields_later():
    code = ("import sys, tensorprog as tp\ntp.kernels.ntk\n"
            "assert 'tensorprog.kernels.regression' not in sys.modules\n"
            "from tensorprog.kernels import MeanField, Regression\n"
            "assert 'tensorprog.kernels.regression' in sys.modules\ntp.kernels.nothing")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert "no attribute 'nothing'" in done.stderr


def test_that_test_can_fail():
    assert loaded_by("import tensorprog, lark, rich") == {"lark", "rich"}


def test_import_does_not_even_load_numpy():
    code = "import sys, tensorprog; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent).returncode == 0


def test_every_public_name_is_there():
    for name in tp.__all__:
        assert getattr(tp, name) is not None
    assert {"Program", "derive", "classify", "parse", "to_text", "nets", "errors", "Scaling"} <= set(tp.__all__)


def test_public_names_are_what_their_modules_define():
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    for node in stub.body:
        if isinstance(node, ast.ImportFrom) and node.module != "collections.abc":
            for alias in node.names:
                assert alias.asname in (None, alias.name), "a public name is the name where it is defined"
                if node.module != "tensorprog":
                    assert hasattr(importlib.import_module(node.module), alias.name)


def test_star_import():
    code = "from tensorprog import *; derive, classify, Program, nets"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent).returncode == 0


def test_every_nonlinearity_is_a_name():
    from tensorprog.atoms.registry import families, nonlinearities

    for name in {r.family for r in nonlinearities()} | {f.name for f in families()}:
        if name not in tp.__all__:
            assert callable(getattr(tp, name)), name
        assert name in dir(tp)


def test_a_nonlinearity_writes_a_line():
    p = tp.Program()
    x = p.vector("x", p.dim("n"))
    p.let("y", tp.tanh(x))
    assert p.lines[-1].fn.name == "tanh"


def test_unknown_names_are_attribute_errors_with_near_ones():
    with pytest.raises(AttributeError, match="'rellu'.*did you mean relu"):
        tp.rellu  # noqa: B018
    with pytest.raises(AttributeError):
        tp._private  # noqa: B018
    assert not hasattr(tp, "no_such_name")
