"""confirm: every predicted exponent of a network in training against the slope that is measured at finite width."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from tensorprog.atoms.optimizers import optimizer as optimizer_record
from tensorprog.errors import RunError
from tensorprog.finite.confirm import Confirmation, confirm_exponents
from tensorprog.interp.scaling import Scaling
from tensorprog.interp.unroll import Trajectory, unroll
from tensorprog.program.program import Program
from tensorprog.scaling.assign import assign
from tensorprog.scaling.derive import Derived, derive, first_blowup, watched

#: What is measured, and how it is written in tables: h1@0 (value), Dh1@2 (change since step 0), Uh1@2 (the part of it
#: that is the weight's own update), dh1@1 (gradient).
KINDS = ("value", "increment", "update", "gradient")
#: What distinguishes alike variables in their names: the token (and the one attended to).
_ALIKE = re.compile(r"_t\d+(s\d+)?(?=[_@#])")
PREFIX = {"value": "", "increment": "D", "update": "U", "gradient": "d", "initial": "W"}


@dataclass(frozen=True)
class Predictions:
    """What the calculus says of a network in training, ready to be measured.

    Attributes:
        trajectory, values: the unrolled program and its exponents.
        exponents: label -> predicted exponent; None for an exact zero.
        groups: label -> the lines (one a sample) that are measured together.
        stopped: the label of the first blow-up, after which nothing is predicted; None if there is none.
    """

    trajectory: Trajectory
    values: dict[str, Fraction]
    exponents: dict[str, Fraction | None]
    groups: dict[str, tuple[str, ...]]
    stopped: str | None


def predict(network: Program, parametrization=None, *, optimizer=None, steps: int = 3, batch: int = 2,
            lr: Fraction | None = None, kinds: Iterable[str] = KINDS) -> Predictions:
    """Return the predicted exponent of every activation, change, update and gradient at steps 0 to ``steps``.

    Args:
        network: a program with weights, outputs and a loss.
        parametrization: as for ``classify``; None derives µP for the optimizer.
        optimizer: a name or a record; by default that of a Derived, else "sgd".
        steps, batch, lr: of the training run; the learning rate (apart from its power of n) is by default 1/4 for
            optimizers linear in the gradient and 1/10 for others, whose steps are larger.
        kinds: what to predict: "value" (step 0), "increment", "update", "initial", "gradient".

    Example:
        >>> import tensorprog as tp
        >>> p = predict(tp.nets.mlp(depth=1), "ntp", optimizer="sgd", steps=1)
        >>> {k: str(e) for k, e in p.exponents.items()}
        {'h1@0': '0', 'x1@0': '0', 'f@0': '0', 'df@0': '0', 'dx1@0': '-1/2', 'dh1@0': '-1/2', 'Uh1@1': '-1/2', \
'Dh1@1': '-1/2', 'Dx1@1': '-1/2', 'Uf@1': '0', 'Df@1': '0'}
    """
    if optimizer is None:
        optimizer = parametrization.trajectory.optimizer if isinstance(parametrization, Derived) else "sgd"
    if parametrization is None:
        parametrization = derive(network, optimizer)
    rule = optimizer_record(optimizer) if isinstance(optimizer, str) else optimizer
    if lr is None:
        lr = Fraction(1, 4) if rule.linear else Fraction(1, 10)
    run = unroll(network, rule, steps=steps, batch=batch, lr=lr)
    values = assign(network, parametrization, run.optimizer)
    scaling = Scaling(run.program, values)
    names = {v for v in watched(network) if not v.startswith("_")}
    end = first_blowup(run, scaling)
    wanted = set(kinds)
    exponents: dict[str, Fraction | None] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for entry in run.entries:
        keep = entry.kind in wanted and (entry.kind != "value" or entry.step == 0)
        if keep and entry.var in names and scaling.defined(entry.name):
            label = f"{PREFIX[entry.kind]}{entry.var}@{entry.step}"
            if entry.name not in groups.get(label, ()):
                e = scaling.exponent(entry.name)
                old = exponents.get(label)
                exponents[label] = e if old is None or (e is not None and e > old) else old
                groups[label] = (*groups.get(label, ()), entry.name)
        if entry is end:
            break
    exponents, groups = _merged(exponents, groups)
    stopped = None if end is None else f"{PREFIX[end.kind]}{end.var}@{end.step}"
    if stopped is not None and stopped not in exponents:
        stopped = _ALIKE.sub("", stopped)
    return Predictions(run, values, exponents, groups, stopped)


def _merged(exponents: dict[str, Fraction | None], groups: dict[str, tuple[str, ...]]):
    """Return the labels with alike variables (tokens and heads of a layer) of equal exponents measured together.

    They share their law up to constants, so nothing is lost, and the noise of single numbers averages out.
    """
    merged: dict[str, Fraction | None] = {}
    together: dict[str, tuple[str, ...]] = {}
    for label, e in exponents.items():
        stem = _ALIKE.sub("", label)
        if merged.get(stem, e) != e:
            stem = label
        merged[stem] = e
        together[stem] = (*together.get(stem, ()), *groups[label])
    return merged, together


def confirm(network: Program, parametrization=None, *, optimizer=None, steps: int = 3, batch: int = 2,
            lr: Fraction | None = None, widths: Iterable[int] | None = None,
            seeds: int | Mapping[int, int] | None = None,
            path: str | os.PathLike | None = None, map: Callable[..., Iterable] = map, progress: bool = False,
            budget: float = 60.0, dtype: str = "float64", method: str = "auto", backend: str = "numpy",
            wrong: dict[str, Fraction] | None = None) -> Confirmation:
    """Train a network at many widths and compare every predicted exponent with the measured slope.

    Args:
        network, parametrization, optimizer, steps, batch, lr: as for ``predict``. At the first blow-up the
            predictions end, with the line that blows up.
        widths, seeds: by default chosen, and extended while something is inconclusive and the budget lasts; given
            both, or width -> seeds, there is one round.
        path: a file that keeps finished runs; the same call resumes from it.
        map: like ``map``, e.g. that of a ProcessPoolExecutor.
        budget: seconds after which no further round begins.
        wrong: predictions to replace, to see that they are refuted.

    Returns:
        A Confirmation: a table of checks (what, predicted, measured, interval, verdict) and the verdict of all.

    Raises:
        RunError: a label in ``wrong`` that is not predicted.

    Example:
        >>> import tensorprog as tp
        >>> check = confirm(tp.nets.mlp(depth=1), "ntp", steps=1, budget=5)
        >>> check.verdict.name
        'CONFIRMED'
    """
    told = predict(network, parametrization, optimizer=optimizer, steps=steps, batch=batch, lr=lr)
    exponents = dict(told.exponents)
    for label, e in (wrong or {}).items():
        if label not in exponents:
            raise RunError(label, label, "nothing is predicted of this",
                           "name one of: " + ", ".join(list(exponents)[:8]))
        exponents[label] = Fraction(e)
    found = confirm_exponents(told.trajectory.program, exponents, groups=told.groups, values=told.values,
                              widths=widths, seeds=seeds, path=path, map=map, progress=progress, budget=budget,
                              dtype=dtype, method=method, backend=backend)
    return replace(found, stopped=told.stopped)
