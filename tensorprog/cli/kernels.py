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
    settings: Sequence[str],
    regime: Sequence[str],
    outputs: Sequence[str],
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
    if not Path(out).absolute().parent.is_dir():
        raise ParseError("--out", out, "there is no such folder", "make it first")
    given = read_parametrization(parametrization, abc)
    program = network(spec, settings, regime)
    made = Kernel("ntk" if kind == "ntk" else "nngp", program, "ntp" if given is None else given, optimizer=optimizer,
                  output=tuple(outputs) or None, variances=read_numbers("--variance", variances),
                  multipliers=read_numbers("--multiplier", multipliers), rates=read_numbers("--rate", rates))
    one, two = read_array("--inputs", inputs), None if inputs2 is None else read_array("--inputs2", inputs2)
    waiting = _patience(f"{kind} of {spec}")

    def progress(done: int, total: int) -> None:
        if waiting.status is not None:
            waiting.status.update(f"{kind} of {spec}: {100 * done // total}%")

    with waiting:
        found = made(one, two, progress=progress)
    try:
        with Path(out).open("wb") as file:
            np.save(file, found, allow_pickle=False)
    except OSError as error:
        raise ParseError("--out", out, f"cannot be written: {error.strerror or error}", "give another file") from None
    under = given if isinstance(given, str) else "ntp" if given is None else "the abc file"
    data = {"kind": kind, "shape": list(found.shape), "dtype": str(found.dtype), "method": made.method, "out": out,
            "inputs": list(made.inputs), "outputs": list(made.outputs), "parametrization": under}
    shape = " x ".join(map(str, found.shape))
    return Answer(data, [f"{kind} of {', '.join(made.outputs)} under {under}: {shape}, {found.dtype}, {made.method}",
                         f"written to {out}"])


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
