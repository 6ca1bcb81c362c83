"""Evaluating the expressions of the text form with the operators of ``build``.

An expression is a Value (numbers and dimensions are constant scalars), a Matrix, an Affine exponent, or the trace of a
matrix, which only ``mean`` takes. Trees are folded without recursion, so nesting has no depth limit.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from fractions import Fraction

from tensorprog.errors import ParseError, ProgramError
from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import Scale
from tensorprog.program import build, functions
from tensorprog.program.grammar import RESERVED, WORDS
from tensorprog.program.instructions import ScalarType
from tensorprog.program.numbers import MAX_BITS, MAX_EXPONENT, MAX_ROOT, settled, sign
from tensorprog.program.program import Program

#: Digits of a literal.
MAX_DIGITS = 1300
#: The largest power of an irrational number.
MAX_IRRATIONAL_POWER = 8


class Evaluator:
    """The expressions of one program: its variables, its dimensions, and matrix expressions that have a name."""

    def __init__(self, program: Program):
        self.program = program
        self.matrices: dict[str, build.Matrix] = {}
        self.below: set[str] = set()  # names that some line defines
        self.column = 1

    def at(self, token) -> None:
        """Remember where we are, for a caret."""
        self.column = token.start_pos + 1

    def fold(self, tree):
        """Return the value of a tree, children first, left to right."""
        stack = [(tree, [])]
        while True:
            node, done = stack[-1]
            if len(done) < len(node.children):
                child = node.children[len(done)]
                if not hasattr(child, "children"):
                    done.append(child)
                elif node.data == "option" and child.data == "variable":
                    done.append(child.children[0])  # a word such as zero, not a variable
                else:
                    stack.append((child, []))
                continue
            stack.pop()
            value = getattr(self, f"on_{node.data}")(*done)
            if not stack:
                return value
            stack[-1][1].append(value)

    # ----------------------------------------------------------------------------------- what is wanted

    def value(self, x) -> build.Value:
        """Return a vector or scalar; raises if it is something else."""
        if isinstance(x, build.Value):
            return x
        if isinstance(x, Affine):
            raise ProgramError("", str(x), "an unknown exponent stands in a power only", f"write n^({x})")
        if isinstance(x, build.Matrix):
            return build.as_vector(x)
        raise ProgramError("", "trace", "only the normalized trace is a number of order 1", "write mean(trace(...))")

    def scale(self, x, what: str) -> Scale:
        """Return a constant: one number times powers of dimensions."""
        if isinstance(x, build.Scalar) and x.line is None and all(not powers for _, powers in x.terms):
            if not x.terms:
                return Scale(Fraction(0))
            if len(x.terms) == 1:
                return x.terms[0][0]
        raise ProgramError(
            "", str(x), f"{what} is a number times powers of dimensions", "write for example 4/n, or 1/3"
        )

    def rational(self, x, what: str) -> Fraction:
        """Return a rational number."""
        number = self.scale(x, what)
        if number.powers or not isinstance(number.number, Fraction):
            raise ProgramError("", str(number), f"{what} is a rational number", "write for example 1/2")
        return number.number

    def whole(self, token, what: str) -> int:
        """Return a number token as a nonnegative integer."""
        self.at(token)
        if not re.fullmatch(r"[0-9]{1,18}", token):
            raise ParseError("", str(token), f"{what} is a whole number", "write for example 3")
        return int(token)

    def constant(self, x: Scale) -> build.Scalar:
        """Return a constant as a scalar expression; raises if the number is too large or not real."""
        x = settled(x)
        return build.Scalar(self.program, ScalarType(), terms=() if x.is_zero else ((x, ()),))

    def constant_of(self, x) -> Scale | None:
        """Return what an expression is if it is one constant, else None."""
        plain = isinstance(x, build.Scalar) and x.line is None and len(x.terms) <= 1 and not any(p for _, p in x.terms)
        return None if not plain else x.terms[0][0] if x.terms else Scale(Fraction(0))

    # --------------------------------------------------------------------------------------------- atoms

    def on_number(self, token):
        """A literal: a decimal is the rational that it spells."""
        self.at(token)
        mantissa, _, exponent = token.lower().partition("e")
        if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DIGITS:
            raise ParseError("", token[:20] + "...", f"numbers have at most {MAX_DIGITS} digits", "use a power of n")
        return self.constant(Scale(Fraction(token)))

    def on_variable(self, token):
        """A name: a variable, a matrix expression, a dimension, an exponent, or pi."""
        self.at(token)
        name = unquoted(token)
        if name in self.program:
            return self.program[name]
        if name in self.matrices:
            return self.matrices[name]
        if name in self.program.dims or name == "n":
            return self.constant(Scale.power(name, 1))
        if name in self.program.unknowns:
            return Affine.symbol(name)
        if name == "pi":
            import sympy

            return self.constant(Scale(sympy.pi))
        if name in RESERVED:
            raise ParseError("", name, f"{name} is a reserved word",
                             f"write {name}(...)" if name in WORDS else "use another name")
        near = get_close_matches(name, [*self.program.names, *self.program.dims, *self.matrices], 1, 0.75)
        fix = (
            "move its line up; no definition may need itself"
            if name in self.below
            else f"did you mean {near[0]}?"
            if near
            else f"define it first, or declare it: vector {name} : n, exponent {name}"
        )
        raise ProgramError("", name, f"{name} is not defined above this line", fix)

    def on_symbol(self, kind, left, weight, right):
        """An unknown exponent of a weight: a[W], b[W], c[W], and eps[W], wd[W] of its optimizer."""
        self.at(kind)
        if kind not in ("a", "b", "c", "eps", "wd"):
            raise ParseError(
                "",
                f"{kind}[{weight}]",
                "only exponents of a weight are written so",
                f"write a[{weight}], b[{weight}] or c[{weight}]",
            )
        return Affine.symbol(f"{kind}[{unquoted(weight)}]")

    def on_parentheses(self, left, x, right):
        """An expression in parentheses."""
        return x

    def on_list(self, *parts):
        """The items of a list."""
        return [x for x in parts if getattr(x, "type", "") not in ("LSQB", "COMMA", "RSQB")]

    on_table = on_list

    # ----------------------------------------------------------------------------------------- operators

    def on_transpose(self, x, token):
        """W.T"""
        self.at(token)
        if not isinstance(x, build.Matrix):
            raise ProgramError(
                "", str(x), "only matrices have a transpose", "leave .T out; mean(u * v) is an inner product"
            )
        return x.T

    def on_negative(self, token, x):
        """-x"""
        self.at(token)
        return x * -1 if isinstance(x, Affine) else -self.operand(x)

    def on_positive(self, token, x):
        """+x"""
        return x

    def operand(self, x):
        """Return a value or a matrix, no exponent and no trace."""
        return x if isinstance(x, build.Matrix) else self.value(x)

    def on_sum(self, *parts):
        """A sum of any number of terms, collected once."""
        terms, signs, total = parts[::2], parts[1::2], parts[0]
        if all(isinstance(x, build.Scalar | build.Vector) for x in terms):
            for x, sign in zip(terms[1:], signs, strict=True):
                self.at(sign)
                build.common_axis(terms[0], x) if terms[0].type != x.type else None
            return build.total([terms[0], *(x if s == "+" else -x for x, s in zip(terms[1:], signs, strict=True))])
        for x, sign in zip(terms[1:], signs, strict=True):
            self.at(sign)
            if isinstance(total, Affine) or isinstance(x, Affine):
                left, right = (e if isinstance(e, Affine) else self.rational(e, "an exponent") for e in (total, x))
                total = Affine.of(left) + right if sign == "+" else Affine.of(left) - right
            else:
                left, right = self.operand(total), self.operand(x)
                total = left + right if sign == "+" else left - right
        return total

    def on_product(self, *parts):
        """A chain of ``*``, ``/`` and ``@``, left to right."""
        total, operators, rest = parts[0], parts[1::2], parts[2::2]
        for i, (operator, x) in enumerate(zip(operators, rest, strict=True)):
            self.at(operator)
            if operator == "*" and operators[i + 1:i + 2] == ("@",) and isinstance(total, build.Vector) and isinstance(
                    x, build.Matrix):
                raise ProgramError("", str(x), f"* and @ bind alike, left to right, so this is ({total} * {x}) @ ...",
                                   f"write {total} * ({x} @ {rest[i + 1]})")
            total = self.binary(total, str(operator), x)
        return total

    def binary(self, left, operator: str, right):
        """Return ``left * right``, ``left / right`` or ``left @ right``."""
        if isinstance(left, Affine) or isinstance(right, Affine):
            exponent, number = (left, right) if isinstance(left, Affine) else (right, left)
            if operator == "*" and self.constant_of(number) is not None:
                return exponent * self.rational(number, "a factor of an exponent")
            if operator == "/" and isinstance(left, Affine) and self.constant_of(right) is not None:
                return left * self.power(self.rational(right, "a divisor of an exponent"), Fraction(-1))
            raise ProgramError("", operator, "unknown exponents stand in powers only, times numbers",
                               "write n^(2*alpha + 1)")
        left, right = self.operand(left), self.operand(right)
        a, b = self.constant_of(left), self.constant_of(right)
        if operator == "@":
            return left @ right
        if a is not None and b is not None:
            return self.constant(a * b if operator == "*" else a * self.inverse(b))
        if operator == "*":
            return left * right
        return left * self.constant(self.inverse(b)) if b is not None else left / right

    def inverse(self, x: Scale) -> Scale:
        """Return 1/x of a constant."""
        if x.is_zero or not sign(x.number):
            raise ProgramError("", "0", "division by zero", "divide by a number that is not 0")
        return x**-1

    def power(self, x: Fraction, k: Fraction) -> Fraction:
        """Return a rational's whole power."""
        return self.scale(self.raised(Scale(x), k), "a power").number

    def on_power(self, base, operator, exponent):
        """base ^ exponent, the exponent a rational or, of a dimension, an expression in unknown exponents."""
        self.at(operator)
        constant = self.constant_of(base)
        if isinstance(exponent, Affine):
            if constant is None or constant.number != 1 or any(e.terms for _, e in constant.powers):
                raise ProgramError(
                    "", str(exponent), "only powers of dimensions have unknown exponents", "write n^-alpha"
                )
            return self.constant(Scale(Fraction(1), tuple((d, exponent * e.const) for d, e in constant.powers)))
        k = self.rational(exponent, "an exponent")
        return self.raised(constant, k) if constant is not None else self.operand(base) ** k

    def raised(self, x: Scale, k: Fraction) -> build.Scalar:
        """Return a constant's rational power, if it is a real number of reasonable size."""
        if max(abs(k.numerator), k.denominator) > MAX_EXPONENT:
            raise ParseError(
                "", str(k)[:40], f"exponents are fractions of numbers up to {MAX_EXPONENT}", "use a smaller one"
            )
        number = x.number
        if number == 0:
            if k <= 0:
                raise ProgramError("", f"0^{k}", "division by zero", "divide by a number that is not 0")
            return self.constant(x)
        if isinstance(number, Fraction) and number != 1:
            bits = max(number.numerator.bit_length(), number.denominator.bit_length())
            if bits * max(abs(k), 1) > MAX_BITS or k.denominator > MAX_ROOT:
                raise ParseError(
                    "", f"{str(number)[:20]}^{k}", "this number is too large to be exact", "use a power of n"
                )
        elif number != 1 and (abs(k) > MAX_IRRATIONAL_POWER or k.denominator > MAX_IRRATIONAL_POWER):
            raise ParseError("", f"({number})^{k}", "this power is too large to be exact", "use a smaller one")
        if sign(number) < 0 and k.denominator != 1:
            raise ProgramError(
                "", f"({number})^{k}", "a root of a negative number is not real", "use a positive number"
            )
        return self.constant(x**k)

    # ------------------------------------------------------------------------------------------ functions

    def on_call(self, token, *parts):
        """A function of the language, or a registered nonlinearity."""
        name = str(token)
        args = [x for x in parts if getattr(x, "type", "") not in ("LPAR", "COMMA", "RPAR")]
        self.at(token)
        if name not in ("mean", "sum", "trace", "diag", "sqrt"):
            return self.function(name, [self.value(x) for x in args])
        if len(args) != 1:
            raise ProgramError("", len(args), f"{name} takes one argument", f"write {name}(x)")
        x = args[0]
        if name == "trace":
            if not isinstance(x, build.Matrix):
                raise ProgramError("", str(x), "trace takes a square matrix", "write mean(x) for a vector")
            return build.trace(x)
        if name == "sqrt":
            constant = self.constant_of(x)
            return self.raised(constant, Fraction(1, 2)) if constant is not None else self.value(x) ** Fraction(1, 2)
        if name == "diag":
            return build.diag(self.value(x))  # which refuses scalars
        if name == "mean" and isinstance(x, build.Trace):
            return build.moment(x)
        if isinstance(x, build.Matrix) and not x.is_column:
            raise ProgramError("", str(x), f"{name} takes a vector", "write mean(trace(...)) for a matrix")
        return build.moment(self.value(x), mean=name == "mean")

    def function(self, name: str, args: list[build.Value]):
        """Return a function of values; numbers after the argument are the parameters of its family."""
        arguments, parameters = functions.split(name, args)
        exact = [p.number for p in map(self.constant_of, parameters) if p is not None and not p.powers]
        if len(exact) < len(parameters) or not all(isinstance(p, Fraction) for p in exact):
            count = len(arguments)
            raise ProgramError("", len(args), f"{name} takes {count} argument{'s' * (count != 1)}",
                               "give as many; parameters are rational numbers")
        fn = functions.function_named(name, len(arguments), *exact)
        if fn.arity != len(arguments):
            raise ProgramError(
                "", len(args), f"{name} takes {fn.arity} argument{'s' * (fn.arity != 1)}", "give as many"
            )
        return build.apply(fn, *arguments)


def unquoted(token) -> str:
    """Return the name that a token spells."""
    return str(token).strip("`")
