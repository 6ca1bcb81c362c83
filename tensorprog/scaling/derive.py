"""derive: the maximal update parametrization of a network, from its program alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from tensorprog.atoms.optimizers import optimizer as optimizer_record
from tensorprog.errors import ParseError, UnsolvableError
from tensorprog.exponents.terms import ZERO
from tensorprog.interp.scaling import Scaling
from tensorprog.interp.unroll import Trajectory, symbol, unroll
from tensorprog.program.dims import Dim
from tensorprog.program.instructions import Input, MatMul, MatrixType, Nonlin, Param, VectorType
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell
from tensorprog.scaling.solve import Equation, Solver
from tensorprog.scaling.table import Weight, power, present

if TYPE_CHECKING:
    from tensorprog.atoms.rule import Rule

#: The unrolled training is lengthened until the exponents repeat, at most to this many steps.
MAX_STEPS = 6


@dataclass(frozen=True)
class Learning:
    """How a weight acts on the network: exponents over the steps of the true calculus.

    ``initial[t]`` is the exponent of W_0 x_t, ``update[t]`` that of the updates so far times x_t (None: zero).
    ``first_learns`` is the first step at which the update is Theta(1).
    """

    initial: tuple[Fraction | None, ...]
    update: tuple[Fraction | None, ...]

    @property
    def first_learns(self) -> int | None:
        """The first step at which the weight's own update is Theta(1), or larger in a sum that is normalized later."""
        return next((t for t, e in enumerate(self.update) if e is not None and e >= 0), None)

    @property
    def best(self) -> Fraction | None:
        """The largest exponent that the update reaches."""
        return max((e for e in self.update if e is not None), default=None)


@dataclass(frozen=True)
class Derived:
    """A derived parametrization: one ``Weight`` a parameter, the multipliers, and why.

    Attributes:
        weights: name -> Weight in the form asked for.
        multipliers: declared exponent -> its value; None where nothing determines it (free).
        equations: unknown -> the line that set it, in the gauge without multipliers.
        learning: name -> exponents over steps.
        trajectory, scaling: the unrolled program and its exponents, for the curious.
    """

    network: Program
    optimizer: str
    form: str
    weights: dict[str, Weight]
    multipliers: dict[str, Fraction | None]
    equations: dict[str, Equation] = field(repr=False)
    learning: dict[str, Learning] = field(repr=False)
    trajectory: Trajectory = field(repr=False)
    scaling: Scaling = field(repr=False)

    @property
    def values(self) -> dict[str, Fraction]:
        """Every unknown exponent with its value, as ``confirm`` and ``Scaling`` take them."""
        out = {}
        for name, w in self.weights.items():
            out[symbol("a", name)], out[symbol("b", name)] = w.a, w.b
            out[symbol("c", name)] = w.c if w.c is not None else Fraction(0)
            out[symbol("eps", name)] = w.eps if w.eps is not None else Fraction(0)
            out[symbol("wd", name)] = w.wd if w.wd is not None else Fraction(0)
        return out | {name: e if e is not None else Fraction(0) for name, e in self.multipliers.items()}

    def in_form(self, form: str) -> Derived:
        """Return the same parametrization in another gauge."""
        return replace(self, form=form, weights=present(self.weights, form, self.trajectory.optimizer.lr_gauge))

    def explain(self, name: str) -> str:
        """Return in words why a weight (or every weight of a role, or a multiplier) is scaled as it is."""
        from tensorprog.scaling.explain import explain

        return explain(self, name)

    def to_json(self) -> dict:
        """Return the result as JSON-ready data; exponents are strings of rationals."""
        from tensorprog.scaling.explain import reason

        def text(e):
            return None if e is None else str(e)

        return {
            "optimizer": self.optimizer,
            "form": self.form,
            "parameters": {
                name: {
                    "role": w.role or w.position, "a": str(w.a), "b": str(w.b), "c": text(w.c),
                    "init_std": "-inf" if w.init == "zero" else str(-w.b),
                    "lr": None if w.c is None else str(-w.c), "multiplier": str(-w.a),
                    **({} if w.eps is None else {"eps": str(-w.eps)}),
                    **({} if w.wd is None else {"weight_decay": str(-w.wd)}),
                    "init": w.init, "first_learns": self.learning[name].first_learns, "reason": reason(self, name),
                }
                for name, w in self.weights.items()
            },
            "multipliers": {name: text(e) for name, e in self.multipliers.items()},
            "free": sorted(name for name, e in self.multipliers.items() if e is None),
        }

    def groups(self) -> list[tuple[list[str], Weight]]:
        """Return the weights gathered by equal role and scaling, in program order."""
        out: dict[tuple, list[str]] = {}
        for name, w in self.weights.items():
            alike = (w.role, w.position, w.a, w.b, w.c, w.eps, w.init, self.learning[name].first_learns)
            out.setdefault(alike, []).append(name)
        return [(names, self.weights[names[0]]) for names in out.values()]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table for people: weights, role, initial std, multiplier, learning rate, first learns at step."""
        out = []
        for names, w in self.groups():
            shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"
            init = {"zero": "0", "one": "1"}.get(w.init) or power(-w.b)
            learns = self.learning[names[0]].first_learns
            out.append((shown, w.role or w.position, init, power(-w.a), "any" if w.c is None else power(-w.c),
                        "never" if learns is None else f"step {learns}"))
        return out

    def __str__(self) -> str:
        head = ("weight", "role", "init std", "multiplier", "learning rate", "learns from")
        rows = [head, *self.rows()]
        wide = [max(len(r[i]) for r in rows) for i in range(len(head))]
        lines = ["  ".join(c.ljust(k) for c, k in zip(r, wide, strict=True)).rstrip() for r in rows]
        for name, e in self.multipliers.items():
            lines.append(f"multiplier exponent {name} = {'free (nothing depends on it)' if e is None else e}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        head = ("weight", "role", "init std", "multiplier", "learning rate", "learns from")
        cells = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in self.rows())
        notes = "".join(f"<p>{escape(name)} = {'free' if e is None else e}</p>" for name, e in self.multipliers.items())
        return "<table><tr>" + "".join(f"<th>{h}</th>" for h in head) + f"</tr>{cells}</table>{notes}"


def derive(network: Program, optimizer: str | Rule = "adam", *, form: str = "table8", freeze: Collection[str] = (),
           regime: Mapping[str, object] | None = None, steps: int = 3, eps: Fraction | None = None) -> Derived:
    """Return the maximal update parametrization of a network.

    Every preactivation is Theta(1), every output O(1), and the update of every weight, times its input, Theta(1) at
    some step: as large as stability allows. First the solution under full alignment, then the fixed point of the
    true calculus over unrolled steps; where alignment is never attained, the slack is given back to the learning rate.

    Args:
        network: a program with ``param`` weights, outputs and a loss.
        optimizer: a name or a record; its degree in the gradient decides the gauge.
        form: "table3", "table8", "table9" (Tensor Programs V) or "global" (one learning rate).
        freeze: weights that are not trained.
        regime: other growths for some dimensions: ``{"m": "1/2"}``.
        steps: least number of unrolled steps; more are taken until the exponents repeat.
        eps: give the optimizer an epsilon, whose exponent is then derived too.

    Raises:
        UnsolvableError: no choice of the unknowns is stable (given exponents may conflict).
        NotCoveredError: the calculus does not cover a line.
        ParseError: unknown names in ``freeze``, ``regime`` or ``form``.

    Example:
        >>> import tensorprog as tp
        >>> print(tp.derive(tp.nets.mlp(depth=2), "adam", form="table3"))
        weight  role     init std  multiplier  learning rate  learns from
        W1      input    1         1           1              step 1
        W2      hidden   1/√n      1           1/n            step 1
        V       readout  1/n       1           1/n            step 1

    Source: Tensor Programs IV (µP), V (Tables 3, 8, 9); the derivation is this library's.
    """
    network = prepared(network, freeze, regime)
    rule = optimizer_record(optimizer) if isinstance(optimizer, str) else optimizer
    network = _in_given_gauges(network, rule, steps, eps)
    # the exponent of epsilon is always of interest; whether a finite one slows learning only if it is given
    some = (eps if eps is not None else Fraction(1, 10**8)) if rule.has_eps else None
    span = 1
    while True:
        run = unroll(network, rule, steps=span, eps=some)
        solver = Solver(run, {})
        if solver.late:  # gradients passed through these weights before their size was known: once more, knowing it
            solver = Solver(run, {name: eq.value for name, eq in solver.late.items()}, known=solver.late)
        if solver.stuck is not None or not _unsolved(solver, network) or span == 3:
            break
        span += 1
    values = dict(solver.values)
    for p in network.params:
        for letter, e in (("a", p.param.a), ("b", p.param.b), ("c", p.param.c)):
            if e is not None:
                values[symbol(letter, p.out)] = e
        for letter in "abc":
            values.setdefault(symbol(letter, p.out), Fraction(0))
        values.setdefault(symbol("eps", p.out), Fraction(0))
        values.setdefault(symbol("wd", p.out), Fraction(0))
    for name in network.unknowns:
        values.setdefault(name, Fraction(0))
    _require_solved(run, solver, values)
    trajectory, scaling, learning = fixed_point(network, rule, values, steps, eps)
    fixed_rates = {p.out for p in network.params if p.param.c is not None}
    held = {name for name in learning if name in fixed_rates or symbol("c", name) in solver.free}
    values, trajectory, scaling, learning = _relax(values, (trajectory, scaling, learning), held, solver,
                                                   lambda v: fixed_point(network, rule, v, steps, eps))
    _require_stable(trajectory, scaling)
    adaptive, decays = rule.has_eps, bool(rule.weight_decay)
    weights: dict[str, Weight] = {}
    for p in network.params:
        learns = p.param.trainable and (p.param.c is not None or symbol("c", p.out) in solver.equations)
        c = values[symbol("c", p.out)] if learns else None
        weights[p.out] = Weight(
            p.out, p.param.role, p.type.rows, p.type.cols, values[symbol("a", p.out)],
            values[symbol("b", p.out)] if p.param.init == "normal" else Fraction(0), c, p.param.init,
            values[symbol("eps", p.out)] if adaptive else None, values[symbol("wd", p.out)] if decays else None)
    multipliers = {name: values[name] if name in solver.equations else None for name in network.unknowns}
    pinned = {p.out for p in network.params if p.param.a is not None or p.param.b is not None or p.param.c is not None}
    shown = present({k: w for k, w in weights.items() if k not in pinned}, form, rule.lr_gauge)
    return Derived(network, rule.name, form, weights | shown, multipliers,
                   solver.equations, learning, trajectory, scaling)


def prepared(network: Program, freeze: Collection[str] = (), regime: Mapping[str, object] | None = None) -> Program:
    """Return the network with some weights frozen and some dimensions grown differently."""
    names = {p.out for p in network.params}
    for name in freeze:
        if name not in names:
            raise ParseError("freeze", name, "no such weight", "name one of: " + ", ".join(sorted(names)))
    dims = network.dims
    for name, growth in (regime or {}).items():
        if name not in dims:
            raise ParseError("regime", name, "no such dimension", "name one of: " + ", ".join(dims))
        try:
            e = Fraction(str(growth))
        except ValueError:
            raise ParseError("regime", growth, "a growth is a rational power of n", f"write {name}=1/2") from None
        if e != dims[name].growth:
            dims[name] = Dim(name, e, dims[name].factor)
    if not freeze and dims == network.dims:
        return network
    swap = {network.dims[k]: d for k, d in dims.items()}
    lines = []
    for line in network.lines:
        if isinstance(line, Input):
            kind, param = line.type, line.param
            if isinstance(kind, MatrixType):
                kind = MatrixType(swap[kind.rows], swap[kind.cols])
            elif isinstance(kind, VectorType):
                kind = VectorType(swap[kind.dim])
            if param is not None and line.out in freeze:
                param = replace(param, trainable=False)
            line = replace(line, type=kind, param=param)
        lines.append(line)
    return Program(dims.values(), lines, outputs=network.outputs, loss=network.loss, unknowns=network.unknowns).freeze()


def _in_given_gauges(network: Program, rule: Rule, steps: int, eps: Fraction | None) -> Program:
    """Return the network with ``a`` filled in for the weights of which only b or c are given.

    The training is the same for all (a + theta, b - theta, c - k theta), so a given b, or else a given c, asks for a
    gauge: solve as if nothing were given, and shift.
    """
    asked = {p.out: p for p in network.params if p.param.a is None and (p.param.b is not None or p.param.c is not None)
             and p.law == network.default_law(p.out, p.param)}
    if not asked:
        return network

    def with_params(params: Mapping[str, Param]) -> Program:
        lines = [replace(x, param=params[x.out], law=network.default_law(x.out, params[x.out]))
                 if isinstance(x, Input) and x.out in params else x for x in network.lines]
        return Program(network.dims.values(), lines, outputs=network.outputs, loss=network.loss,
                       unknowns=network.unknowns).freeze()

    free = {name: replace(p.param, b=None, c=None) for name, p in asked.items()}
    solved = derive(with_params(free), rule, form="table3", steps=steps, eps=eps).weights
    filled = {}
    for name, p in asked.items():
        w, given = solved[name], p.param
        if given.b is not None:
            w = w.shifted(w.b - given.b, rule.lr_gauge)
        elif given.c is not None and w.c is not None:
            w = w.shifted((w.c - given.c) / rule.lr_gauge, rule.lr_gauge)
        filled[name] = replace(given, a=w.a, b=w.b, c=w.c if given.c is None else given.c)
    return with_params(filled)


def _unsolved(solver: Solver, network: Program) -> bool:
    return any(p.param.c is None and p.param.trainable and symbol("c", p.out) not in solver.equations
               for p in network.params)


def learning_of(trajectory: Trajectory, scaling: Scaling) -> dict[str, Learning]:
    """Return the exponents of W_0 x_t and of the updates times x_t, step by step, for every weight."""
    initial: dict[str, list] = {}
    update: dict[str, list] = {}
    for p in trajectory.network.params:
        initial[p.out], update[p.out] = ([[] for _ in range(trajectory.steps + 1)] for _ in range(2))
    for entry in trajectory.entries:
        if not entry.param or entry.param not in initial:
            continue
        if entry.kind == "update":
            update[entry.param][entry.step].append(scaling.get(entry.name))
        elif entry.kind == "initial":
            initial[entry.param][entry.step].append(scaling.get(entry.name))
        elif entry.kind == "value" and entry.step == 0:
            for row in initial[entry.param]:
                row.append(scaling.get(entry.name))
    return {name: Learning(tuple(map(_top, initial[name])), tuple(map(_top, update[name]))) for name in initial}


def _top(sizes) -> Fraction | None:
    return max((e for e in sizes if e is not None), default=None)


def fixed_point(network: Program, optimizer, values, steps: int,
                eps=None) -> tuple[Trajectory, Scaling, dict[str, Learning]]:
    """Unroll until the exponents of the last two steps agree (or the first blow-up), and return the last run."""
    span = max(steps, 2)
    while True:
        trajectory = unroll(network, optimizer, steps=span, eps=eps)
        scaling = Scaling(trajectory.program, values)
        learning = learning_of(trajectory, scaling)
        repeated = all(len(v.update) < 2 or (v.update[-1] == v.update[-2] and v.initial[-1] == v.initial[-2])
                       for v in learning.values())
        if repeated or span >= MAX_STEPS:
            return trajectory, scaling, learning
        span += 1


def _relax(values, run, held, solver: Solver, attempt):
    """Give the slack of weights whose aligned update is never attained back to their learning rates.

    Not where it comes from something that starts small and grows by itself (what follows a narrowing matrix, a logit
    that is squared): that takes log n steps, and then the aligned update is attained.
    """
    for _ in range(4):
        slack = {name: v.best for name, v in run[2].items() if v.best is not None and v.best < 0 and name not in held}
        if not slack:
            break
        for names in ([*slack], *([n] for n in slack)):
            trial = dict(values)
            for name in names:
                trial[symbol("c", name)] += slack[name]
            tried = attempt(trial)
            trajectory, scaling, _ = tried
            if first_blowup(trajectory, scaling) is None and not _still_small(trajectory, scaling, solver):
                values, run = trial, tried
                break
        else:
            break
    return values, *run


def _still_small(trajectory: Trajectory, scaling: Scaling, aligned: Solver) -> bool:
    """Return whether a factor, an argument or a preactivation is at no step as large as under full alignment."""
    network = trajectory.network
    names: set[str] = set()
    for line in network.lines:
        if isinstance(line, MatMul) and network.dim_of(line.out).growth:
            names.add(line.out)
        elif isinstance(line, Nonlin) and isinstance(line.fn, Poly):
            names.update(a for _, powers in line.fn.terms if sum(powers) > 1
                         for a, p in zip(line.args, powers, strict=True) if p)
        elif isinstance(line, Nonlin):
            names.update(line.args)
    for v in names:
        found = trajectory.find("value", v)
        full = _top(aligned.get(e.name) for e in found if e.name in aligned.states)
        if full == 0 and (_top(scaling.get(e.name) for e in found) or ZERO) < 0:
            return True
    return False


def watched(network: Program) -> set[str]:
    """Return the variables that stability is about: activations, outputs, and the numbers that functions are taken of.

    An unnormalized sum on its way to a multiplier is none of them.
    """
    out = set(network.outputs)
    for line in network.lines:
        kind = network.type_of(line.out)
        if isinstance(kind, VectorType) and not kind.dim.is_fixed:
            out.add(line.out)
        if isinstance(line, Nonlin) and not isinstance(line.fn, Poly):
            out.update(line.args)
    return out


def first_blowup(trajectory: Trajectory, scaling: Scaling):
    """Return the first entry (in program order) whose value grows with n, or None."""
    names = watched(trajectory.network)
    for entry in trajectory.entries:
        if entry.var in names and entry.kind in ("value", "increment", "update"):
            if not scaling.defined(entry.name):
                return entry
            e = scaling.exponent(entry.name)
            if e is not None and e > 0:
                return entry
    return None


def _require_solved(run: Trajectory, solver: Solver, values: Mapping[str, Fraction]) -> None:
    """Raise if an unknown has no equation because sizes grew before, or because its weight meets nothing but zeros."""
    if solver.stuck is not None:
        entry = first_blowup(run, solver)
        if entry is None or not solver.defined(entry.name):
            raise solver.uncovered(next(name for name in run.program.names if not solver.defined(name)))
        e = Scaling(run.program, values).get(entry.name)
        aligned = e is None or e <= 0
        raise UnsolvableError(
            spell(run.program.line_of(entry.name)), power(solver.exponent(entry.name) if aligned else e),
            f"{entry.var} grows with n at step {entry.step}" + (" once its factors align" if aligned else ""),
            "free the exponents that are given, or normalize the sum")
    for name, line in solver.idle.items():
        raise UnsolvableError(spell(line), name, "it multiplies nothing, or only zeros: nothing determines its size",
                              "remove it, give it exponents [a=..., b=..., c=...], or make its input nonzero")


def _require_stable(trajectory: Trajectory, scaling: Scaling) -> None:
    entry = first_blowup(trajectory, scaling)
    if entry is None:
        return
    line = spell(trajectory.program.line_of(entry.name))
    grown = power(scaling.get(entry.name)) if scaling.defined(entry.name) else "undefined"
    raise UnsolvableError(line, grown, f"{entry.var} still grows with n at step {entry.step}",
                          "free the exponents that are given, or normalize the sum")


