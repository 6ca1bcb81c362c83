"""What a verb answers, and how it is printed: a table for people, or one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Exit statuses: done (and confirmed), refuted, bad usage or input, inconclusive or not covered; interrupted, bug.
DONE, REFUTED, BAD_INPUT, INCONCLUSIVE, INTERRUPTED, BUG = 0, 1, 2, 3, 130, 70
STATUS_OF_VERDICT = {"confirmed": DONE, "refuted": REFUTED, "inconclusive": INCONCLUSIVE}


@dataclass(frozen=True)
class Answer:
    """A verb's result: what ``--json`` prints, what people see, and the exit status."""

    data: dict[str, Any]
    people: Sequence[Any] = field(default=())  # strings, and rich tables
    status: int = DONE


def write(answer: Answer, as_json: bool) -> None:
    """Print an answer on standard output."""
    if as_json:
        sys.stdout.write(json.dumps(answer.data, ensure_ascii=False, allow_nan=False) + "\n")
        sys.stdout.flush()
        return
    console = console_on(sys.stdout)
    with console.capture() as printed:
        for part in answer.people:
            if isinstance(part, str):
                # a text stands as it is: no markup, and no breaking of lines that are to be copied
                console.print(part, markup=False, highlight=False, soft_wrap=True)
            else:
                console.print(part)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in printed.get().splitlines()))
    sys.stdout.flush()


def console_on(stream):
    """Return a rich console: at most 120 columns on a terminal, 100 in a file or a pipe (COLUMNS says otherwise)."""
    import os

    from rich.console import Console

    if stream.isatty():
        console = Console(file=stream, highlight=False)
        console.width = min(console.width, 120)
        return console
    columns = os.environ.get("COLUMNS", "")
    return Console(
        file=stream, highlight=False, width=int(columns) if columns.isdecimal() and int(columns) > 20 else 100
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Callable[[Sequence[str]], str | None] | None = None,
    title: str | None = None,
):
    """Return a rich table that reads as plain columns where there are no colours."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False, expand=False)
    for column in head:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row), style=style(row) if style else None)
    return made


def complain(message: str) -> None:
    """Print one message on standard error."""
    sys.stderr.write(f"error: {message}\n")
    sys.stderr.flush()
