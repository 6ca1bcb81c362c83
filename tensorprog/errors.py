"""One exception tree. Every error says the line, the value, the reason and the fix.

Example:
    >>> raise TensorProgError("h = W @ x", "axis 'm'", "W contracts over 'n'", "use W.T @ x")
    Traceback (most recent call last):
    tensorprog.errors.TensorProgError: line h = W @ x: W contracts over 'n' (got "axis 'm'")
      fix: use W.T @ x
"""

from __future__ import annotations


class TensorProgError(Exception):
    """Base of all errors raised on purpose.

    Args:
        line: the offending line as the user would write it (or a file position, "3: y = ...").
        value: the value that is wrong.
        reason: why it cannot be.
        fix: what to write instead.
    """

    def __init__(self, line, value, reason: str, fix: str):
        self.line, self.value, self.reason, self.fix = str(line), value, reason, fix
        super().__init__(f"line {line}: {reason} (got {value!r})\n  fix: {fix}")

    def __reduce__(self):
        return type(self), (self.line, self.value, self.reason, self.fix)


class ProgramError(TensorProgError):
    """The program is ill-typed: an axis, a type or a name does not fit."""


class ParseError(TensorProgError):
    """A text program, an abc file or a command-line value that cannot be read."""


class RecordError(TensorProgError):
    """A nonlinearity, loss, optimizer or parametrization record contradicts itself."""


class NotCoveredError(TensorProgError):
    """The theory says nothing about this program; a number here would be invented."""


class NoClosedFormError(NotCoveredError):
    """The theory covers the program, but the exact form of the answer is out of reach; sampling is not."""


class UnsolvableError(TensorProgError):
    """No choice of the unknown exponents meets the conditions asked for."""


class RunError(TensorProgError):
    """A run at finite width that cannot be carried out as asked."""


class MissingExtraError(TensorProgError):
    """A feature that needs an optional dependency which is not installed."""

    @classmethod
    def of(cls, package: str, extra: str, feature: str) -> MissingExtraError:
        """Return the error for ``feature`` needing ``package`` from ``tensorprog[extra]``."""
        return cls(feature, package, f"needs {package}", f"pip install 'tensorprog[{extra}]'")
