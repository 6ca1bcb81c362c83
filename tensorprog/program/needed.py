"""The part of a program that some of its variables depend on."""

from __future__ import annotations

from collections.abc import Sequence

from tensorprog.program.instructions import Input, Joint
from tensorprog.program.program import Program


def needed(program: Program, names: Sequence[str]) -> Program:
    r"""Return the program without the lines that these variables do not depend on.

    Example:
        >>> from tensorprog.program.text import parse
        >>> needed(parse("dim n\nvector x : n\ny = x*x\nz = exp(y)\ns = mean(y)"), ["s"]).names
        ('x', 'y', 's')
    """
    keep = set(names)
    for line in reversed(program.lines):
        if line.out in keep:
            keep.update(line.args)
            if isinstance(line, Input) and isinstance(line.law, Joint):
                keep.update(line.law.group)
    lines = [line for line in program.lines if line.out in keep]
    return Program(program.dims.values(), lines, outputs=[x for x in program.outputs if x in keep],
                   unknowns=program.unknowns).freeze()
