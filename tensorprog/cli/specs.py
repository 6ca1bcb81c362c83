"""What SPEC can be: a .tp file, a built-in architecture, or file.py:function."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any

from tensorprog.errors import ParseError, TensorProgError
from tensorprog.program.program import Program


def load(
    spec: str, settings: Sequence[str] = (), regime: Mapping[str, str] | None = None
) -> tuple[Program, dict[str, str]]:
    """Return the program that SPEC names, and what of ``regime`` is left to be applied to its dimensions.

    Args:
        spec: a .tp file, the name of an architecture, or ``file.py:function``.
        settings: ``key=value`` arguments of the architecture or function, typed by its signature.
        regime: growths by name; an architecture that takes a regime gets it as an argument.

    Raises:
        ParseError: no such file, architecture or function, an argument that does not fit, or a function that raises.

    Example:
        >>> program, _ = load("mlp", ["depth=3", "activation=relu"])
        >>> [w.out for w in program.params]
        ['W1', 'W2', 'W3', 'V']
    """
    regime = dict(regime or {})
    file, _, name = spec.rpartition(":")
    if file.endswith(".py"):
        return _made(spec, _function(spec, file, name), settings, regime)
    if spec.endswith(".tp") or Path(spec).exists():
        if settings:
            raise ParseError(
                "--set",
                ", ".join(settings),
                "a text program has no options",
                "edit the file, or use a built-in architecture",
            )
        return _text_program(spec), regime
    from tensorprog.nets import ARCHITECTURES

    if spec not in ARCHITECTURES:
        near = get_close_matches(spec, ARCHITECTURES, 1)
        raise ParseError(
            "SPEC",
            spec,
            "neither a .tp file, nor a built-in architecture, nor file.py:function",
            f"did you mean {near[0]}?" if near else "use a file, or one of " + ", ".join(ARCHITECTURES),
        )
    return _made(spec, ARCHITECTURES[spec], settings, regime)


def _made(spec: str, make: Callable, settings: Sequence[str], regime: dict[str, str]) -> tuple[Program, dict[str, str]]:
    arguments = typed_arguments(spec, make, settings)
    if regime and "regime" in inspect.signature(make).parameters:
        arguments["regime"], regime = regime, {}
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for the answer
            program = make(**arguments)
    except TensorProgError:
        raise
    except (Exception, SystemExit) as error:
        raise _raised(spec, error) from None
    if not isinstance(program, Program):
        raise ParseError(
            spec, type(program).__name__, "the function does not return a Program", "return a tensorprog.Program"
        )
    return program, regime


def read_text(path: str) -> str:
    """Return a UTF-8 file's text; raises ParseError for what cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParseError(path, path, "no such file", "check the path") from None
    except IsADirectoryError:
        raise ParseError(path, path, "this is a directory", "name a file in it") from None
    except UnicodeDecodeError as error:
        raise ParseError(path, f"byte {error.start}", "the file is not UTF-8 text", "save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ParseError(path, path, f"cannot be read: {reason}", "check the path and its permissions") from None


def _text_program(path: str) -> Program:
    from tensorprog.program.text import parse

    try:
        return parse(read_text(path), path)
    except RecursionError:
        raise ParseError(path, path, "an expression is nested too deeply", "split it into several lines") from None


def _function(spec: str, file: str, name: str) -> Callable:
    read_text(file)  # says in our words what is wrong with the file
    if not name:
        raise ParseError("SPEC", spec, "which function of the file?", f"write {file}:function")
    module_spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if module_spec is None or module_spec.loader is None:
        raise ParseError(spec, file, "not a Python file", "name a .py file")
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(Path(file).resolve().parent))
    sys.modules.setdefault(module.__name__, module)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _raised(file, error) from None
    finally:
        sys.path.pop(0)
    make = getattr(module, name, None)
    if not callable(make):
        known = [k for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        raise ParseError(
            spec,
            name,
            f"{file} has no function of this name",
            "use " + ", ".join(known) if known else "define a function that returns a Program",
        )
    return make


def _raised(where: str, error: BaseException) -> ParseError:
    """Return the error that says what a user's code raised, and at which of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).name == Path(where.rpartition(":")[0] or where).name]
    at = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else where
    if isinstance(error, SyntaxError):
        at = f"{Path(error.filename or where).name}:{error.lineno}"
    return ParseError(
        at, f"{type(error).__name__}: {error}", "this code raised an exception", "mend it, or call it in Python"
    )


def typed_arguments(spec: str, make: Callable, settings: Sequence[str]) -> dict[str, Any]:
    """Return ``key=value`` words as arguments of a function, typed by its annotations and defaults.

    Raises:
        ParseError: an unknown key (near ones are named), a key given twice, a value of the wrong type.

    Example:
        >>> from tensorprog.nets import mlp
        >>> typed_arguments("mlp", mlp, ["depth=3", "bias=yes"])
        {'depth': 3, 'bias': True}
    """
    parameters = inspect.signature(make).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    keys = [k for k, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY)]
    out: dict[str, Any] = {}
    for word in settings:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ParseError("--set", word, "an option is key=value", "write --set depth=3")
        if key not in keys and not open_ended:
            near = get_close_matches(key, keys, 1)
            raise ParseError(
                f"--set {word}",
                key,
                f"{spec} has no option of this name",
                (f"did you mean {near[0]}? " if near else "") + "use " + ", ".join(keys),
            )
        if key in out:
            raise ParseError(f"--set {word}", key, "this option is given twice", "give it once")
        out[key] = _value(word, text, parameters.get(key))
    for key, p in parameters.items():
        if p.default is p.empty and key not in out and key in keys and key != "regime":
            raise ParseError(spec, key, f"{spec} needs a value for this option", f"add --set {key}=...")
    return out


def _value(word: str, text: str, parameter: inspect.Parameter | None):
    kinds = _kinds(parameter)
    for kind in ("int", "bool", "float", "Fraction"):
        if kind in kinds:
            try:
                return _READERS[kind](text)
            except (ValueError, KeyError, ZeroDivisionError):
                if "str" in kinds or "Any" in kinds:
                    break
                raise ParseError(f"--set {word}", text, f"not {_WORDS[kind]}", f"write {_EXAMPLES[kind]}") from None
    if kinds and not kinds & {"str", "Any", "object"}:
        raise ParseError(
            f"--set {word}",
            text,
            f"an argument of type {' | '.join(sorted(kinds))} cannot be given here",
            "use file.py:function with a function that sets it",
        )
    return text


def _kinds(parameter: inspect.Parameter | None) -> set[str]:
    """Return the names of the types that a parameter takes; empty if nothing is known."""
    if parameter is None:
        return set()
    note = parameter.annotation
    if note is parameter.empty:
        default = parameter.default
        return set() if default is parameter.empty or default is None else {type(default).__name__}
    text = note if isinstance(note, str) else getattr(note, "__name__", str(note))
    return {part.strip().rpartition(".")[2] for part in text.split("|")} - {"None"}


_TRUTH = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "bool": lambda text: _TRUTH[text.lower()],
    "float": float,
    "Fraction": Fraction,
}
_WORDS = {"int": "a whole number", "bool": "true or false", "float": "a number", "Fraction": "a rational number"}
_EXAMPLES = {"int": "3", "bool": "true or false", "float": "0.5", "Fraction": "1/2"}
