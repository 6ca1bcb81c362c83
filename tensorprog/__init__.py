"""tensorprog: how a computation scales with width, derived from the computation itself.

The public names are listed once, in ``__init__.pyi``, which type checkers read as it stands. Here the same list is read
when a name is first asked for, so ``import tensorprog`` loads nothing but this file. Every registered nonlinearity
is a name too: ``tp.relu(x)`` writes a line of a program.

Example:
    >>> import tensorprog as tp
    >>> p = tp.Program()
    >>> n = p.dim("n")
    >>> W, x = p.matrix("W", n, n), p.vector("x", n)
    >>> p.let("s", p.mean((W.T @ tp.relu(W @ x)) * x))
    <scalar: s>
"""

from tensorprog._version import __version__ as __version__


def _exports() -> dict[str, tuple[str, str]]:
    """Return public name -> (module, name there), read from the list in ``__init__.pyi``."""
    if not _EXPORTS:
        import ast
        from pathlib import Path

        stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
        for node in ast.parse(stub).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == __name__:
                _EXPORTS.update({alias.asname: (node.module, alias.name) for alias in node.names if alias.asname})
    return _EXPORTS


_EXPORTS: dict[str, tuple[str, str]] = {}


def __getattr__(name: str):
    if name == "__all__":
        return [*_exports()]
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, source = _exports().get(name, ("", ""))
    if module == __name__:
        value = importlib.import_module(f"{module}.{source}")
    elif module:
        value = getattr(importlib.import_module(module), source)
    else:
        value = _nonlinearity(name)
    globals()[name] = value
    return value


def _nonlinearity(name: str):
    from tensorprog.errors import TensorProgError
    from tensorprog.program import build

    try:
        return build.function(name)
    except TensorProgError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error.reason}; {error.fix}") from None


def __dir__() -> list[str]:
    from tensorprog.atoms.registry import nonlinearities

    return sorted({*_exports(), *(record.family for record in nonlinearities())})
