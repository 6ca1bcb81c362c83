"""explain: why a number is what it is, in words: the instruction, the step, and the law that forced it."""

from __future__ import annotations

from difflib import get_close_matches
from fractions import Fraction
from typing import TYPE_CHECKING

from tensorprog.errors import ParseError
from tensorprog.interp.scaling import Scaling
from tensorprog.interp.unroll import symbol
from tensorprog.program.instructions import MatMul, Moment, Outer
from tensorprog.program.program import spell
from tensorprog.scaling.solve import Equation
from tensorprog.scaling.table import Weight, power

if TYPE_CHECKING:
    from tensorprog.scaling.classify import Classification
    from tensorprog.scaling.derive import Derived

LAWS = {
    "LLN": "law of large numbers: the summands are correlated, so all of them add up",
    "CLT": "central limit theorem: the summands are uncorrelated, so only the square root of their number adds up",
    "sum": "a sum over a fixed axis: it does not grow",
    "product": "a product of sizes",
}


def reason(result: Derived, name: str) -> str:
    """Return one sentence on why a weight has its scaling."""
    parts = []
    for letter, what in (("b", "init"), ("c", "lr")):
        eq = result.equations.get(symbol(letter, name))
        if eq is not None:
            parts.append(f"{what}: {eq.line} must be 1 ({eq.law})")
    if not parts:
        w = result.weights[name]
        parts.append("given" if w.c is not None else "nothing depends on it")
    return "; ".join(parts)


def explain(result: Derived, name: str) -> str:
    """Return why a weight, all weights of a role, or a multiplier is scaled as it is.

    Raises:
        ParseError: no weight, role or multiplier of this name.

    Example:
        >>> import tensorprog as tp
        >>> print(tp.derive(tp.nets.mlp(depth=2), "adam", form="table3").explain("V"))
        V (readout, d_out x n): w ~ N(0, n^-2), multiplier 1, learning rate 1/n
          init: V meets x2@0 in `f@0 = V @ x2@0`, which must be 1.
            size of x2@0: 1
            sum over a growing axis (LLN): n
            so the entries of V must be 1/n. Law of large numbers: the summands are correlated, so all of them add up.
            (At initialization they are not; training aligns the input with the weight.)
          learning rate: the update of V acts in `dV@0.f@1 = dV@0 @ x2@1`, which must be 1.
            size of the update's entries (chi.f@0 x x2@0): 1
            size of x2@1: 1
            sum over n (LLN): n
            so the learning rate must be 1/n. Law of large numbers: the summands are correlated, so all of them add up.
          From step 1 on its own update moves its output by 1.
    """
    if name in result.multipliers:
        return _multiplier(result, name)
    names = [n for n, w in result.weights.items() if name in (n, w.role, w.position)]
    if not names:
        known = [*result.weights, *result.multipliers, *{w.role for w in result.weights.values() if w.role}]
        near = get_close_matches(name, known, 3) or known[:6]
        raise ParseError("explain", name, "no weight, role or multiplier of this name",
                         "name one of: " + ", ".join(near))
    shown = names if name in names else names[:1]
    text = "\n".join(_weight(result, n) for n in shown)
    if len(names) > len(shown):
        text += f"\n  ({len(names) - 1} more of this role, scaled alike for like reasons: {', '.join(names[1:6])} ...)"
    return text


def _weight(result: Derived, name: str) -> str:
    w: Weight = result.weights[name]
    init = {"zero": "starts at 0", "one": "starts at 1"}.get(w.init, f"w ~ N(0, {_variance(w.b)})")
    rate = "free" if w.c is None else power(-w.c)
    out = [f"{name} ({w.role or w.position}, {w.rows.name} x {w.cols.name}): {init}, multiplier {power(-w.a)}, "
           f"learning rate {rate}"]
    init_eq, rate_eq = (result.equations.get(symbol(k, name)) for k in "bc")
    if init_eq is not None:
        x = init_eq.terms[0][0].removeprefix("size of ")
        out.append(f"  init: {name} meets {x} in `{init_eq.line}`, which must be 1.")
        out += _terms(init_eq)
        out.append(f"    so the entries of {name} must be {power(-init_eq.value)}. {LAWS[init_eq.law].capitalize()}.")
        if init_eq.law == "LLN":
            out.append("    (At initialization they are not; training aligns the input with the weight.)")
    if rate_eq is not None:
        out.append(f"  learning rate: the update of {name} acts in `{rate_eq.line}`, which must be 1.")
        out += _terms(rate_eq)
        out.append(f"    so the learning rate must be {power(-rate_eq.value)}. {LAWS[rate_eq.law].capitalize()}.")
    if init_eq is not None and w.a:
        out.append(f"  That is without a multiplier; in the form {result.form!r} the multiplier {power(-w.a)} takes "
                   "its share (Lemma J.1 of Tensor Programs V: the training is the same).")
    learning = result.learning[name]
    first = learning.first_learns
    if first is not None:
        late = [f"at step {t} only {power(e)}" for t, e in enumerate(learning.update[:first]) if e is not None]
        why = f" ({', '.join(late)}: what it multiplies is not yet correlated with its update)" if late else ""
        out.append(f"  From step {first} on its own update moves its output by 1{why}.")
    elif learning.best is not None:
        out.append(f"  Its own update moves its output by {power(learning.best)} at most.")
    return "\n".join(out)


def _variance(b: Fraction) -> str:
    return "1" if b == 0 else f"n^{-2 * b}" if (2 * b).denominator == 1 else f"n^({-2 * b})"


def _terms(eq: Equation) -> list[str]:
    return [f"    {words}: {power(e)}" for words, e in eq.terms]


def _multiplier(result: Derived, name: str) -> str:
    eq = result.equations.get(name)
    if eq is None:
        return (f"{name} is free: the dimension that it is a power of does not grow in this regime, so no exponent "
                "changes anything.")
    lines = [f"{name} = {eq.value}", f"  `{eq.line}` must be 1, however its factors come to align during training.",
             *_terms(eq), f"    {LAWS.get(eq.law, eq.law).capitalize()}."]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------- chains of reasons


def chain(scaling: Scaling, name: str, depth: int = 12) -> list[str]:
    """Return the lines behind a variable's exponent, largest contribution first, each with its law."""
    out = []
    seen = set()
    while name not in seen and len(out) < depth:
        seen.add(name)
        line = scaling.program.line_of(name)
        size = power(scaling.get(name)) if scaling.defined(name) else "undefined"
        why = scaling.reasons.get(name)
        law = "" if why is None else {"LLN": " [LLN]", "CLT": " [CLT]"}.get(why.law, "")
        out.append(f"{spell(line)}   is {size}{law}")
        if why is None or not why.via:
            break
        if isinstance(line, MatMul) and isinstance(scaling.program.line_of(line.matrix), Outer):
            out.append(f"  with the update {spell(scaling.program.line_of(line.matrix))}")
        summed = isinstance(line, MatMul | Moment) and not (why.law == "LLN" and why.via in scaling.states)
        name = line.args[-1] if summed else why.via
    return out


def explain_verdict(result: Classification, name: str | None) -> str:
    """Return why a parametrization has its verdict: the chain of lines behind the variable that decides it."""
    scaling = result.scaling
    if name is None and result.first_blowup is not None:
        name = result.first_blowup[0]
    if name is None:
        moved = [e for v in result.trajectory.network.outputs for e in result.trajectory.find("increment", v)]
        entries = moved[-1:]
    else:
        kinds = ("value", "increment", "update", "gradient", "loss")
        entries = [e for kind in kinds for e in result.trajectory.find(kind, name)]
        if result.first_blowup is not None and name == result.first_blowup[0]:
            entries = [e for e in entries if e.step == result.first_blowup[1] and e.kind == "value"] or entries
        if not entries and name in scaling.states:
            return "\n".join(chain(scaling, name))
        if not entries:
            raise ParseError("explain", name, "no such variable",
                             "name one of: " + ", ".join(result.trajectory.network.names[-8:]))
    head = str(result).splitlines()[0]
    return "\n".join([head, *("  " + line for e in entries[:1] for line in chain(scaling, e.name))])
