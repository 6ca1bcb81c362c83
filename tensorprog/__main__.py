"""The command line: ``tensorprog VERB SPEC ...``; every failure is one message on standard error and an exit status.

Exit statuses: 0 done (and confirmed), 1 refuted, 2 bad usage or bad input, 3 inconclusive or not covered by the theory;
130 interrupted, 141 the reader of the output went away, 70 a bug (please report it).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: the words after the command's name; by default those of the process.

    Example:
        >>> main(["derive", "mlp", "--set", "depth=1", "--form", "table3"])
        µP for adam, form table3: powers of n, up to width-independent factors
        <BLANKLINE>
        weights   role      init std   multiplier   learning rate   learns from
        ────────────────────────────────────────────────────────────────────────
        W1        input     1          1            1               step 1
        V         readout   1/n        1            1/n             step 1
        0
    """
    from tensorprog.cli.output import BAD_INPUT, BUG, INCONCLUSIVE, INTERRUPTED, complain
    from tensorprog.errors import NotCoveredError, TensorProgError, UnsolvableError

    words = [*(sys.argv[1:] if arguments is None else arguments)]
    try:
        return _run(words)
    except (NotCoveredError, UnsolvableError) as error:
        complain(str(error))
        return INCONCLUSIVE
    except TensorProgError as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        out = _value_of(words, "--out")
        complain(
            f"interrupted; finished runs are kept in {out}: the same command goes on from there"
            if out
            else "interrupted" + "; with --out FILE.jsonl finished runs are kept" * ("confirm" in words[:1])
        )
        return INTERRUPTED
    except BrokenPipeError:
        # what is still buffered has nowhere to go, and Python would complain of that at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:
        complain("line main: this run does not fit into memory (got MemoryError)\n  fix: use smaller --widths")
        return BAD_INPUT
    except Exception as error:
        if os.environ.get("TENSORPROG_TRACEBACK"):
            raise
        complain(
            f"line {' '.join(words)}: this is a bug in tensorprog (got {type(error).__name__}: {error})\n"
            "  fix: please report it with the output of the same command under TENSORPROG_TRACEBACK=1"
        )
        return BUG


def _run(words: list[str]) -> int:
    from tensorprog.cli.output import BAD_INPUT, DONE, complain

    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a letter is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    import typer

    from tensorprog.cli.app import app

    try:
        act: Any = typer.main.get_command(app).main(words, prog_name="tensorprog", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        said = getattr(error, "format_message", None)
        if said is None:  # only errors of usage have it, whichever click typer brings
            raise
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "tensorprog"
        complain(f"line {' '.join(['tensorprog', *words])}: {said()}\n  fix: see {where} --help")
        return BAD_INPUT
    return DONE if act is None or isinstance(act, int) else act()  # help and --version are done already


def _value_of(words: Sequence[str], option: str) -> str | None:
    """Return the value of an option as it was written."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return None


if __name__ == "__main__":
    sys.exit(main())
