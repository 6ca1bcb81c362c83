"""A reading of a program is one file with one total table: instruction class -> rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tensorprog.errors import NotCoveredError
from tensorprog.program.instructions import INSTRUCTIONS

#: Every table made so far; the meta-test asks each what it is missing.
ALL_INTERPRETERS: list[Rules] = []


class Rules:
    """The rules of one interpreter, one per instruction class.

    Calling the table with a class gives the decorator that enters a rule; ``rules[line]`` is the rule of a line.

    Args:
        name: the interpreter's name; by convention its file is ``interp/<name>.py``.
        classes: what the table must cover, all instructions by default.
        listed: whether the table joins ``ALL_INTERPRETERS``.

    Raises:
        TypeError: if a class outside ``classes`` gets a rule, or one gets two.
        NotCoveredError: by ``rules[line]``, if the line's class has no rule.

    Example:
        >>> from tensorprog.program.instructions import MatMul, Moment
        >>> cost = Rules("cost", (MatMul, Moment), listed=False)
        >>> @cost(MatMul)
        ... def _(line, sizes): return "rows * cols"
        >>> cost[MatMul("h", "W", "x")](None, {}), [c.__name__ for c in cost.missing()]
        ('rows * cols', ['Moment'])
    """

    def __init__(self, name: str, classes: Iterable[type] = INSTRUCTIONS, *, listed: bool = True):
        self.name, self.classes = name, tuple(classes)
        self._table: dict[type, Callable] = {}
        if listed:
            ALL_INTERPRETERS.append(self)

    def __call__(self, *classes: type) -> Callable[[Callable], Callable]:
        """Return the decorator that makes a function the rule of these classes."""
        for cls in classes:
            if cls not in self.classes:
                raise TypeError(f"{self.name}: {cls.__name__} is not one of {[c.__name__ for c in self.classes]}")
            if cls in self._table:
                raise TypeError(f"{self.name}: {cls.__name__} has a rule already")

        def enter(rule: Callable) -> Callable:
            self._table.update(dict.fromkeys(classes, rule))
            return rule

        return enter

    def __getitem__(self, line) -> Callable:
        try:
            return self._table[type(line)]
        except KeyError:
            raise NotCoveredError(repr(line), type(line).__name__, f"{self.name} has no rule for this",
                                  f"add one in interp/{self.name}.py") from None

    def missing(self) -> list[type]:
        """Return the classes that have no rule yet, in order."""
        return [c for c in self.classes if c not in self._table]

    def __repr__(self) -> str:
        return f"Rules({self.name!r}: {len(self._table)} of {len(self.classes)})"
