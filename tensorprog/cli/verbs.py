"""The verbs: each turns read arguments into an Answer. Nothing here prints."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tensorprog.cli.options import read_parametrization, read_ratios, read_regime, read_widths
from tensorprog.cli.output import STATUS_OF_VERDICT, Answer, table
from tensorprog.cli.specs import load
from tensorprog.errors import NotCoveredError, ParseError, TensorProgError
from tensorprog.program.instructions import Input
from tensorprog.program.program import Program


def network(spec: str, settings: Sequence[str], regime: Sequence[str], freeze: Sequence[str] = ()) -> Program:
    """Return the program of SPEC with its regime and frozen weights."""
    from tensorprog.scaling.derive import prepared

    program, left = load(spec, settings, read_regime(regime))
    return prepared(program, freeze, left)


def trained(spec: str, settings: Sequence[str], regime: Sequence[str], freeze: Sequence[str] = ()) -> Program:
    """Return the network of SPEC; raises ParseError if it has nothing to train."""
    program = network(spec, settings, regime, freeze)
    if not program.params:
        raise ParseError(spec, "no param", "this program has no trainable weights", "declare one: param W : n x n")
    if not program.outputs:
        raise ParseError(spec, "no output", "this network has no output to learn with", "add: output f")
    return program


def _given(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, so that defaults stand in one place: the library's signature."""
    return {key: value for key, value in words.items() if value is not None}


# ------------------------------------------------------------------------------------------------------ show


def show(
    spec: str,
    *,
    settings: Sequence[str],
    regime: Sequence[str],
    optimizer: str,
    parametrization: str | None,
    abc: str | None,
    format: str,
) -> Answer:
    """Answer with the program, typed and with exponents where there are any."""
    from tensorprog.interp.show import FORMATS
    from tensorprog.interp.show import show as shown

    if format not in FORMATS:
        raise ParseError("--format", format, "no such format", "use " + ", ".join(FORMATS))
    program = network(spec, settings, regime)
    given = read_parametrization(parametrization, abc)
    exponents, under, note = _exponents(program, given, optimizer)
    text = shown(program, exponents, format)
    lines = []
    for line in program.lines:
        e = exponents.get(line.out)
        lines.append(
            {
                "name": line.out,
                "type": str(program.type_of(line.out)),
                "instruction": type(line).__name__,
                "text": _definition(line),
                "zero": line.out in exponents and e is None,
                "exponent": None if e is None else str(e),
            }
        )
    data = {
        "lines": lines,
        "outputs": list(program.outputs),
        "dims": {k: str(d.growth) for k, d in program.dims.items()},
        "parametrization": under,
        "note": note,
    }
    if format != "text":
        data["text"] = text
        return Answer(data, [text])
    words = [note] if note else [f"exponents at initialization under {under}"] if under else []
    return Answer(data, [text, *(f"# {w}" for w in words)])


def _definition(line) -> str:
    from tensorprog.interp.show import definition

    return f"{line.out} {definition[line](line)}"


def _exponents(program: Program, given, optimizer: str) -> tuple[dict[str, Any], str | None, str | None]:
    """Return the exponents that are defined, under which parametrization, and why there are none."""
    from tensorprog.atoms.optimizers import optimizer as record
    from tensorprog.interp.scaling import Scaling
    from tensorprog.program.instructions import MatrixType
    from tensorprog.scaling.assign import assign
    from tensorprog.scaling.derive import derive

    rule = record(optimizer)
    values, under = {}, None
    try:
        if given is not None:
            values, under = assign(program, given, rule), given if isinstance(given, str) else "the abc file"
        elif program.params and program.outputs:
            values, under = derive(program, optimizer).values, f"the µP derived for {rule.name}"
        scaling = Scaling(program, values)
    except NotCoveredError as error:
        return {}, None, f"no exponents: {error.reason}"
    except TensorProgError as error:
        if given is not None:
            raise
        return {}, None, f"no exponents: {error.reason}"
    names = [x for x in program.names if not isinstance(program.type_of(x), MatrixType)]
    return {x: scaling.exponent(x) for x in names if scaling.defined(x)}, under, None


# ----------------------------------------------------------------------------------------------------- limit


def limit(
    spec: str,
    *,
    settings: Sequence[str],
    regime: Sequence[str],
    names: Sequence[str],
    method: str,
    tol: float | None,
    seed: int,
    budget: float | None,
    ratios: Sequence[str],
    optimizer: str,
    parametrization: str | None,
    abc: str | None,
    derivation: bool,
) -> Answer:
    """Answer with the limits of the outputs, and of other variables by name."""
    from tensorprog.finite.limit import limit as limits

    for option, value in (("--tol", tol), ("--budget", budget)):
        if value is not None and not 0 < value < float("inf"):
            raise ParseError(option, value, "this is a positive number", f"write {option} 1")
    program = network(spec, settings, regime)
    for name in names:
        program.type_of(name)  # raises for what is not there
    outputs = tuple(dict.fromkeys((*program.outputs, *names)))
    asked = Program(program.dims.values(), program.lines, outputs=outputs, unknowns=program.unknowns,
                    loss=program.loss).freeze()
    values, under = _values(program, read_parametrization(parametrization, abc), optimizer)
    options = _given({"tol": tol, "budget": budget, "ratios": read_ratios(ratios, program.dims) or None})
    with _patience(f"limits of {spec}"):
        found = limits(asked, method=method, seed=seed, values=values, **options)
    flat = [x for entry in found.values() for x in (entry if isinstance(entry, tuple) else (entry,))]
    data: dict[str, Any] = {"outputs": {x.name: _limit_json(x, derivation) for x in flat}, "parametrization": under}
    head = ("variable", "limit", "value", "error", "method")
    people: list[Any] = [f"as n grows, under {under}" if under else "as n grows", "",
                         table(head, [_limit_row(x) for x in flat])]
    where = {str(s): f"where {s} = {f}" for x in flat for s, f in x.definitions.items()}
    wanted = tol if tol is not None else 1e-3
    late = [x.name for x in flat if x.method == "sampled" and x.error > wanted * max(1.0, abs(x.value))]
    if late:
        people.append(f"the time was over before {', '.join(late)} had the error asked for; --budget gives more")
    if derivation:
        people += [part for x in flat for part in ("", x.explain())]
    else:
        people += where.values()
    return Answer(data, people)


def _values(program: Program, given, optimizer: str) -> tuple[dict[str, Any], str | None]:
    """Return the unknown exponents of a network, and what they are called."""
    from tensorprog.atoms.optimizers import optimizer as record
    from tensorprog.scaling.assign import assign
    from tensorprog.scaling.derive import derive

    if given is not None:
        return assign(program, given, record(optimizer)), given if isinstance(given, str) else "the abc file"
    params = [w.param for w in program.params if isinstance(w, Input) and w.param]
    if not program.unknowns and all(w.a is not None and w.b is not None for w in params):
        return {}, None
    derived = derive(program, optimizer)
    return dict(derived.values), f"the µP derived for {derived.optimizer}"


def _limit_json(x, derivation: bool) -> dict[str, Any]:
    data = x.to_json()
    numbers = {key: None if isinstance(v, float) and v != v else v for key, v in data.items()}
    if x.kind != "scalar" and not x.exponent:  # no number has this formula: it is a random variable
        numbers |= {"exact": None, "z": data["exact"] if x.kind == "vector" else None}
    return numbers | {"kind": x.kind} | ({"derivation": x.derivation()} if derivation else {})


def _limit_row(x) -> tuple[str, ...]:
    value = "" if x.value != x.value else f"{x.value:.10g}"
    error = "" if x.method == "exact" else f"{x.error:.1g}"
    shown = "" if x.exact is None else str(x.exact).replace("**", "^")
    if x.exponent:
        shown = f"0, like n^({x.exponent})" if x.exponent < 0 else f"n^({x.exponent}) times {shown}"
    elif x.kind == "vector":
        from tensorprog.interp.notation import Writer

        law = "" if x.limits is None else Writer(x.limits).z(x.limits.z(x.variable))
        shown = f"Z = {law}, variance {x.variance:.6g}" if law else f"coordinates of variance {x.variance:.6g}"
    elif x.kind == "gaussian":
        shown = f"N({x.value:.6g}, {x.variance:.10g})"
    return x.name, shown, value, error, {"exact": "closed form"}.get(x.method, x.method)


class _patience:
    """Says on a terminal that something takes its time."""

    def __init__(self, what: str):
        self.status = None
        if sys.stderr.isatty():
            from rich.console import Console

            self.status = Console(file=sys.stderr).status(what)

    def __enter__(self):
        if self.status is not None:
            self.status.start()

    def __exit__(self, *exc) -> None:
        if self.status is not None:
            self.status.stop()


# ---------------------------------------------------------------------------------------------------- derive


def derive(
    spec: str,
    *,
    settings: Sequence[str],
    regime: Sequence[str],
    freeze: Sequence[str],
    optimizer: str,
    form: str,
    steps: int | None,
    explain: Sequence[str],
) -> Answer:
    """Answer with the maximal update parametrization."""
    from tensorprog.scaling.derive import derive as derived

    program = trained(spec, settings, regime, freeze)
    result = derived(program, optimizer, form=form, **_given({"steps": steps}))
    words = {name: result.explain(name) for name in explain}
    data = result.to_json() | ({"explanations": words} if words else {})
    rows = table(("weights", "role", "init std", "multiplier", "learning rate", "learns from"), result.rows())
    notes = [
        f"multiplier exponent {name} = {'free (nothing depends on it)' if e is None else e}"
        for name, e in result.multipliers.items()
    ]
    head = f"µP for {result.optimizer}, form {result.form}: powers of n, up to width-independent factors"
    return Answer(data, [head, "", rows, *notes, *words.values()])


# -------------------------------------------------------------------------------------------------- classify


def classify(
    spec: str,
    *,
    settings: Sequence[str],
    regime: Sequence[str],
    freeze: Sequence[str],
    optimizer: str,
    parametrization: str | None,
    abc: str | None,
    steps: int | None,
    explain: Sequence[str],
) -> Answer:
    """Answer with where a parametrization stands."""
    from tensorprog.scaling.classify import classify as classified
    from tensorprog.scaling.table import power

    given = read_parametrization(parametrization, abc)
    if given is None:
        raise ParseError(
            "classify",
            "no parametrization",
            "which parametrization is to be classified?",
            "add --parametrization sp (or ntp, mfp, mup) or --abc FILE.json",
        )
    program = trained(spec, settings, regime, freeze)
    result = classified(program, given, optimizer=optimizer, **_given({"steps": steps}))
    words = {name: result.explain(name) for name in explain}
    data = result.to_json() | ({"explanations": words} if words else {})
    headline = str(result).split("\n  ", 1)[0]
    rows = [
        (
            name,
            "nothing" if v.best is None else power(v.best),
            "never" if v.first_learns is None else f"step {v.first_learns}",
        )
        for name, v in result.learning.items()
    ]
    return Answer(
        data, [headline, "", table(("weight", "its update moves its output by", "learns from"), rows), *words.values()]
    )


# --------------------------------------------------------------------------------------------------- confirm


#: Rows of a table of checks, and the seconds that a confirmation may take unless told otherwise.
MOST_ROWS, BUDGET = 48, 120.0


def confirm(
    spec: str,
    *,
    settings: Sequence[str],
    regime: Sequence[str],
    freeze: Sequence[str],
    optimizer: str,
    parametrization: str | None,
    abc: str | None,
    steps: int | None,
    batch: int | None,
    widths: str | None,
    seeds: int | None,
    out: str | None,
    jobs: int | None,
    budget: float | None,
    every: bool,
) -> Answer:
    """Answer with every predicted exponent against what is measured at finite width."""
    from tensorprog.finite.network import confirm as confirmed
    from tensorprog.scaling.derive import derive as derived

    given = read_parametrization(parametrization, abc)
    options = _given(
        {"steps": steps, "batch": batch, "widths": read_widths(widths), "seeds": seeds, "path": out, "budget": budget}
    )
    program = trained(spec, settings, regime, freeze)
    subject = given if given is not None else derived(program, optimizer)
    options.setdefault("budget", BUDGET)
    with _workers(jobs) as mapped:
        result = confirmed(program, subject, optimizer=optimizer, map=mapped, progress=sys.stderr.isatty(), **options)
    data = result.to_json()
    name = given if isinstance(given, str) else "the abc file" if given is not None else "the derived µP"
    head = ("what", "predicted", "measured", "99% interval", "verdict")
    listed, left_out = (result.checks, "") if every else _worth_reading(result.checks)
    rows = [check.cells()[: len(head)] for check in listed]
    reasons = [f"{c['what']}: {c['reason']}" for c in data["checks"] if c["verdict"] == "refuted"]
    colours = {"confirmed": None, "refuted": "bold red", "inconclusive": "yellow"}
    counts = [f"{sum(c['verdict'] == v for c in data['checks'])} {v}" for v in colours]
    verdict = data["verdict"]
    return Answer(
        data,
        [
            f"{name}, {optimizer}: exponents of n, predicted and measured",
            "",
            table(head, rows, style=lambda row: colours.get(row[-1])),
            *([left_out] if left_out else []),
            "",
            *reasons,
            f"{verdict}: {', '.join(counts)}",
        ],
        STATUS_OF_VERDICT[verdict],
    )


def _worth_reading(checks: Sequence[Any]) -> tuple[Sequence[Any], str]:
    """Return the checks of a table that a person reads, and a line on the others."""
    if len(checks) <= MOST_ROWS:
        return checks, ""
    from tensorprog.finite.fit import Verdict

    refuted, open_ones, good = ([c for c in checks if c.verdict is v] for v in
                                (Verdict.REFUTED, Verdict.INCONCLUSIVE, Verdict.CONFIRMED))
    room = max(8, MOST_ROWS - len(refuted))
    shown = {*map(id, refuted), *map(id, open_ones[: room // 2]), *map(id, good[: room // 2])}
    listed = [c for c in checks if id(c) in shown]
    return listed, f"… and {len(checks) - len(listed)} more, none of them refuted; --all lists them"


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _workers:
    """The map that runs are spread with: the builtin, or that of processes, which are ended on the way out.

    Workers ignore Ctrl-C, so that it is the parent that ends and keeps what is finished.
    """

    def __init__(self, jobs: int | None):
        if jobs is None:
            jobs = _cores()
        if jobs < 1:
            raise ParseError("--jobs", jobs, "at least one job is needed", "write --jobs 1")
        self.jobs, self.pool = jobs, None

    def __enter__(self):
        if self.jobs == 1:
            return map
        import multiprocessing
        import os

        # each process has one core: threads of linear algebra that wait for each other cost far more than they give
        for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        # spawn: BLAS threads of the parent do not survive a fork
        self.pool = multiprocessing.get_context("spawn").Pool(self.jobs, _ignore_interrupts)
        return self.pool.imap_unordered

    def __exit__(self, *exc) -> None:
        if self.pool is not None:
            self.pool.terminate()
            self.pool.join()


def _ignore_interrupts() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
