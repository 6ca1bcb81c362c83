"""The verb ``kernel``: arrays in, an array out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorprog.cli.options import read_parametrization
from tensorprog.cli.output import Answer
from tensorprog.errors import ParseError


def kernel(
    spec: str,
    *,
    kind: str,
    inputs: str,
    inputs2: str | None,
    out: str,
    error: str | None,
    settings: Sequence[str],
    regime: Sequence[str],
    outputs: Sequence[str],
    given_inputs: Sequence[str],
    exponents: Sequence[str],
    samples: int,
    seed: int,
    variances: Sequence[str],
    multipliers: Sequence[str],
    rates: Sequence[str],
    optimizer: str,
    parametrization: str | None,
    abc: str | None,
) -> Answer:
    """Write the kernel of a network at the given inputs and answer with its shape."""
    import numpy as np

    from tensorprog.cli.verbs import _patience, network
    from tensorprog.kernels import Kernel

    if kind not in ("nngp", "ntk"):
        raise ParseError("--kind", kind, "no such kernel", "use nngp or ntk")
    for option, path in (("--out", out), ("--error", error)):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ParseError(option, path, "there is no such folder", "make it first")
    if error is not None and Path(error).absolute() == Path(out).absolute():
        raise ParseError("--error", error, "the kernel itself goes there", "give another file")
    given = read_parametrization(parametrization, abc)
    program = network(spec, settings, regime)
    made = Kernel("ntk" if kind == "ntk" else "nngp", program, "ntp" if given is None else given, optimizer=optimizer,
                  output=tuple(outputs) or None, inputs=tuple(given_inputs) or None, samples=samples, seed=seed,
                  exponents=read_exponents(exponents), variances=read_numbers("--variance", variances),
                  multipliers=read_numbers("--multiplier", multipliers), rates=read_numbers("--rate", rates))
    one, two = read_array("--inputs", inputs), None if inputs2 is None else read_array("--inputs2", inputs2)
    waiting = _patience(f"{kind} of {spec}")

    def progress(done: int, total: int) -> None:
        if waiting.status is not None:
            waiting.status.update(f"{kind} of {spec}: {100 * done // total}%")

    with waiting:
        if error is None and made.method in ("closed form", "quadrature"):
            shape, dtype, largest = _filled(out, made, one, two, progress)
        else:
            found, errors = made.estimate(one, two, progress=progress)
            shape, dtype, largest = found.shape, found.dtype, float(np.max(errors, initial=0.0))
            _save("--out", out, found)
            if error is not None:
                _save("--error", error, errors)
    under = given if isinstance(given, str) else "ntp" if given is None else "the abc file"
    data = {"kind": kind, "shape": list(shape), "dtype": str(dtype), "method": made.method, "error": largest,
            "out": out, "inputs": list(made.inputs), "outputs": list(made.outputs),
            "parametrization": under}
    text = " x ".join(map(str, shape))
    how = f"{made.method}, standard error at most {largest:.1g}" if largest else made.method
    people = [f"{kind} of {', '.join(made.outputs)} under {under}: {text}, {dtype}, {how}", f"written to {out}"]
    return Answer(data, people if error is None else [*people, f"standard errors written to {error}"])


def _filled(path: str, made: Any, one: Any, two: Any, progress: Any) -> tuple[tuple[int, ...], Any, float]:
    """Compute a kernel straight into a file, which appears when it is done; the memory needed does not grow with it."""
    import numpy as np

    counts = tuple(len(x) if x.ndim else 0 for x in (one, one if two is None else two))
    shape = counts if len(made.outputs) == 1 else (len(made.outputs),) * 2 + counts
    dtype = np.dtype(np.float32 if one.dtype in (np.float32, np.float16) else np.float64)
    if not all(counts):  # nothing to map; the kernel says what is wrong with such inputs
        _save("--out", path, made(one, two, progress=progress))
        return shape, dtype, 0.0
    part = Path(f"{path}.part")
    try:
        made(one, two, out=np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape), progress=progress)
        part.replace(path)
    except OSError as trouble:
        raise _unwritten("--out", path, trouble) from None
    finally:
        part.unlink(missing_ok=True)
    return shape, dtype, 0.0


def _save(option: str, path: str, found: Any) -> None:
    import numpy as np

    try:
        with Path(path).open("wb") as file:
            np.save(file, found, allow_pickle=False)
    except OSError as trouble:
        raise _unwritten(option, path, trouble) from None


def _unwritten(option: str, path: str, trouble: OSError) -> ParseError:
    return ParseError(option, path, f"cannot be written: {trouble.strerror or trouble}", "give another file")


def read_exponents(words: Sequence[str]) -> dict[str, Any]:
    """Return ``{"alpha": Fraction(1)}`` for ``["alpha=1"]``.

    >>> read_exponents(["alpha=1/2"])
    {'alpha': Fraction(1, 2)}
    """
    from fractions import Fraction

    out: dict[str, Any] = {}
    for word in words:
        name, equals, text = (s.strip() for s in word.partition("="))
        try:
            if not equals or not name or name in out:
                raise ValueError
            out[name] = Fraction(text)
        except (ValueError, ZeroDivisionError):
            raise ParseError("--exponent", word, "not an exponent of the network and its rational number (each once)",
                             "write --exponent alpha=1") from None
    return out


def read_numbers(option: str, words: Sequence[str]) -> dict[str, float]:
    """Return ``{"hidden": 2.0}`` for ``["hidden=2"]``.

    >>> read_numbers("--variance", ["hidden=2", "bias=1e-2"])
    {'hidden': 2.0, 'bias': 0.01}
    """
    out: dict[str, float] = {}
    for word in words:
        name, equals, text = (s.strip() for s in word.partition("="))
        try:
            if not equals or not name or name in out:
                raise ValueError
            out[name] = float(text)
        except ValueError:
            raise ParseError(option, word, "not a weight, role or * and its number (each once)",
                             f"write {option} hidden=2") from None
    return out


def read_array(option: str, path: str) -> Any:
    """Return the array of a .npy file; raises ParseError for what is none."""
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ParseError(option, path, "no such file", "check the path") from None
    except (OSError, ValueError, EOFError):
        raise ParseError(option, path, "not an array of numbers in numpy's format",
                         "write one with numpy.save") from None
    if not isinstance(found, np.ndarray):
        raise ParseError(option, path, "several arrays in one file", "save one array with numpy.save")
    return found
