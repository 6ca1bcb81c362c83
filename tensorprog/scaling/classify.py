"""classify: where a parametrization stands: unstable, trivial, kernel or feature learning, and which line says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from tensorprog.exponents.terms import ZERO
from tensorprog.interp.scaling import Scaling
from tensorprog.interp.unroll import Entry, Trajectory, unroll
from tensorprog.program.instructions import Input, MatMul, Normal, VectorType
from tensorprog.program.program import Program
from tensorprog.scaling.assign import assign
from tensorprog.scaling.derive import Learning, first_blowup, learning_of
from tensorprog.scaling.table import power


@dataclass(frozen=True)
class Classification:
    """Where a parametrization of a network stands in the infinite-width limit.

    Attributes:
        verdict: "unstable", "trivial", "kernel" or "feature_learning".
        stable: preactivations are Theta(1) at initialization, and nothing grows with n afterwards.
        nontrivial: stable, and some output moves by Theta(1).
        feature_learning: stable, nontrivial, and the features (what the readout sees) move by Theta(1).
        r: the features move like n^-r; None if nothing is read out, or the calculus ends before they move.
        first_blowup: (variable, step, exponent) of the first line that breaks stability: an exponent above 0, a
            preactivation that vanishes at initialization, or None where the calculus ends.
        learning: per weight, the exponents of its update times its input over the steps.
    """

    verdict: str
    stable: bool
    nontrivial: bool
    feature_learning: bool
    r: Fraction | None
    first_blowup: tuple[str, int, Fraction | None] | None
    learning: dict[str, Learning]
    trajectory: Trajectory = field(repr=False)
    scaling: Scaling = field(repr=False)
    values: dict[str, Fraction] = field(repr=False)

    def to_json(self) -> dict:
        """Return the result as JSON-ready data; exponents are strings of rationals."""
        blowup = self.first_blowup
        return {
            "verdict": self.verdict, "stable": self.stable, "nontrivial": self.nontrivial,
            "feature_learning": self.feature_learning, "r": None if self.r is None else str(self.r),
            "first_blowup": None if blowup is None else {
                "variable": blowup[0], "step": blowup[1], "exponent": None if blowup[2] is None else str(blowup[2])},
            "weights": {
                name: {"update": None if v.best is None else str(v.best), "first_learns": v.first_learns}
                for name, v in self.learning.items()
            },
        }

    def explain(self, name: str | None = None) -> str:
        """Return in words why: the chain of lines behind a variable, by default the one that decides the verdict."""
        from tensorprog.scaling.explain import explain_verdict

        return explain_verdict(self, name)

    def __str__(self) -> str:
        words = {"unstable": "unstable", "trivial": "stable but trivial: the outputs do not move",
                 "kernel": "kernel regime: the outputs move, the features do not",
                 "feature_learning": "feature learning"}[self.verdict]
        lines = [words + ("" if self.r is None else f" (r = {self.r})")]
        if self.first_blowup is not None:
            v, t, e = self.first_blowup
            size = "has no exponent" if e is None else f"is {power(e)}" + (" (it should be 1)" if e < 0 else "")
            lines.append(f"first broken: {v} at step {t} {size}")
        for name, v in self.learning.items():
            best = "nothing" if v.best is None else power(v.best)
            when = "" if v.first_learns is None else f", from step {v.first_learns}"
            lines.append(f"  {name}: its update moves its output by {best}{when}")
        return "\n".join(lines)


def classify(network: Program, parametrization="mup", *, optimizer="sgd", steps: int = 3, batch: int = 1,
             trajectory: Trajectory | None = None) -> Classification:
    """Return where a parametrization of a network stands.

    Args:
        network: a program with weights, outputs and a loss.
        parametrization: "sp", "ntp", "mfp", "mup", a record, a Derived, or a mapping ``{"W1": {"a": "0", "b": "1/2",
            "c": "1"}, "*": ...}``.
        optimizer: a name or a record.
        steps: the number of unrolled steps; 3 are enough for every weight to act on every other.
        trajectory: an unrolled training to reuse (many parametrizations of one network).

    Raises:
        ParseError: a weight without exponents, or an exponent that is not rational.
        NotCoveredError: the record does not cover a weight of this network.

    Example:
        >>> import tensorprog as tp
        >>> net = tp.nets.mlp(depth=2)
        >>> [tp.classify(net, p, optimizer="sgd").verdict for p in ("sp", "ntp", "mup")]
        ['unstable', 'kernel', 'feature_learning']

    Source: the definitions are those of Tensor Programs IV (Definition 3.2, Theorems 3.3, 3.4, 3.6, 3.8).
    """
    run = trajectory if trajectory is not None else unroll(network, optimizer, steps=steps, batch=batch)
    values = assign(network, parametrization, run.optimizer)
    return classified(run, values)


def classified(run: Trajectory, values: dict[str, Fraction]) -> Classification:
    """Return where the values of the unknown exponents stand, for an unrolled training."""
    scaling = Scaling(run.program, values)
    learning = learning_of(run, scaling)
    broken = vanishing(run, scaling) or first_blowup(run, scaling)
    blowup = None if broken is None else (broken.var, broken.step, scaling.get(broken.name))
    stable = broken is None
    moved = _largest(scaling, [e for out in run.network.outputs for e in run.find("increment", out)])
    features = [e for v in _features(run.network) for e in run.find("increment", v)]
    reach = _largest(scaling, features)
    r = None if reach is None or not all(scaling.defined(e.name) for e in features) else -reach
    nontrivial = stable and moved == 0
    learns = nontrivial and r == 0
    verdict = "unstable" if not stable else "trivial" if not nontrivial else "feature_learning" if learns else "kernel"
    return Classification(verdict, stable, nontrivial, learns, r, blowup, learning, run, scaling, values)


def vanishing(run: Trajectory, scaling: Scaling) -> Entry | None:
    """Return the first preactivation that is smaller than Theta(1) at initialization although its weight is not zero.

    A matrix onto a narrower growing axis is excused down to sqrt(out/in) of its input: larger, it would blow up what
    later aligns with it. So is what only inherits the smallness of its input.
    """
    for entry in run.find("value", step=0):
        if not entry.param:
            continue
        weight = run.network.line_of(entry.param)
        out = run.network.type_of(entry.var)
        random = isinstance(weight, Input) and isinstance(weight.law, Normal)
        if not random or not isinstance(out, VectorType) or out.dim.is_fixed:
            continue
        e = scaling.get(entry.name)
        if e is None or e >= 0:
            continue
        line = scaling.program.line_of(entry.name)
        if not isinstance(line, MatMul):
            return entry
        narrower = min(ZERO, out.dim.growth - scaling.growth(line.vector)) / 2
        if e < min(scaling.get(line.vector) or ZERO, ZERO) + narrower:
            return entry
    return None


def _features(network: Program) -> list[str]:
    """Return the vectors along growing axes that the outputs are read out from."""
    out: list[str] = []
    todo = list(network.outputs)
    seen = set(todo)
    while todo:
        line = network.line_of(todo.pop())
        for a in line.args:
            kind = network.type_of(a)
            if isinstance(kind, VectorType) and not kind.dim.is_fixed:
                out.append(a)
            elif a not in seen and not isinstance(network.line_of(a), Input):
                seen.add(a)
                todo.append(a)
    return list(dict.fromkeys(out))


def _largest(scaling: Scaling, entries) -> Fraction | None:
    return max((e for x in entries if (e := scaling.get(x.name)) is not None), default=None)


