"""The options of every verb, and the application that dispatches to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any

import typer

from tensorprog.cli.output import DONE, write

EXAMPLES = """Three to start with:

  tensorprog derive transformer --optimizer adam         how must each weight scale with width?
  tensorprog classify mlp --parametrization sp           what goes wrong with standard initialization, and where?
  tensorprog confirm mlp --optimizer adam                do networks of finite width agree?
"""


def _records(folder: str) -> str:
    """Return the names of the records in a folder of atoms: their files', so that no record is loaded to show help."""
    names = sorted(m.name for m in iter_modules([str(Path(__file__).parents[1] / "atoms" / folder)]))
    return ", ".join(names[:-1]) + " or " + names[-1] + "."


Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        show_default=False,
        help="A .tp file, a built-in architecture (such as mlp or transformer), or file.py:function.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An argument of the architecture or function; may be repeated.",
        show_default=False,
    ),
]
Regime = Annotated[
    list[str] | None,
    typer.Option(
        "--regime",
        metavar="AXIS=POWER,...",
        show_default=False,
        help="Growth of axes as powers of n, such as heads=1,d_head=0.",
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option("--freeze", metavar="NAME", show_default=False, help="A weight that is not trained; may be repeated."),
]
Optimizer = Annotated[str, typer.Option("--optimizer", metavar="NAME", help=_records("optimizers"))]
Parametrization = Annotated[
    str | None, typer.Option("--parametrization", metavar="NAME", show_default=False, help=_records("parametrizations"))
]
Abc = Annotated[
    str | None,
    typer.Option(
        "--abc",
        metavar="FILE.json",
        show_default=False,
        help='Exponents: {"W1": {"a": "0", "b": "1/2", "c": "1"}, "*": ...}.',
    ),
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Training steps to unroll.", show_default=False)]
Explain = Annotated[
    list[str] | None,
    typer.Option(
        "--explain",
        metavar="NAME",
        show_default=False,
        help="Say why, for a weight, role or variable; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

#: Options that may be repeated; none given is an empty sequence.
REPEATED = {"settings", "regime", "freeze", "explain", "names", "ratios", "outputs", "variances",
            "multipliers", "rates", "given_inputs", "exponents"}

app = typer.Typer(
    name="tensorprog",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How a computation scales with width, derived from the computation itself.",
    epilog="",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> int:
    """How a computation scales with width, derived from the computation itself."""
    if version:
        from tensorprog import __version__

        typer.echo(f"tensorprog {__version__}")
        raise typer.Exit(DONE)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        typer.echo("\n" + EXAMPLES.rstrip())
    return DONE


@app.command(short_help="The program, typed and with exponents.")
def show(
    spec: Spec,
    settings: Settings = None,
    optimizer: Optimizer = "adam",
    parametrization: Parametrization = None,
    abc: Abc = None,
    regime: Regime = None,
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, latex, html, mermaid or dot.")
    ] = "text",
    json: Json = False,
) -> Callable[[], int]:
    """Print the program, typed and with the exponent of every line at initialization.

    A network's unknown exponents are those of --parametrization, --abc, or else the derived µP.
    """
    return _later("show", locals())


@app.command(short_help="The maximal update parametrization (µP).")
def derive(
    spec: Spec,
    settings: Settings = None,
    optimizer: Optimizer = "adam",
    form: Annotated[
        str,
        typer.Option("--form", metavar="FORM", help="global, table3, table8 or table9: equivalent ways to write it."),
    ] = "table8",
    freeze: Freeze = None,
    regime: Regime = None,
    steps: Steps = None,
    explain: Explain = None,
    json: Json = False,
) -> Callable[[], int]:
    """Derive how initialization, multiplier and learning rate of each weight must scale with width.

    Every preactivation stays of order 1, and every weight's update moves its output as much as stability allows.
    """
    return _later("derive", locals())


@app.command(short_help="Unstable, trivial, kernel or feature learning?")
def classify(
    spec: Spec,
    settings: Settings = None,
    optimizer: Optimizer = "sgd",
    parametrization: Parametrization = None,
    abc: Abc = None,
    freeze: Freeze = None,
    regime: Regime = None,
    steps: Steps = None,
    explain: Explain = None,
    json: Json = False,
) -> Callable[[], int]:
    """Say whether a parametrization is unstable, trivial, a kernel or learns features, and which line says so."""
    return _later("classify", locals())


@app.command(short_help="Infinite-width limits: closed forms, else digits with their error.")
def limit(
    spec: Spec,
    settings: Settings = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="VAR", show_default=False,
                     help="A variable besides the outputs; may be repeated."),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help="auto, exact (never sampled) or sampled.")
    ] = "auto",
    tol: Annotated[
        float | None,
        typer.Option("--tol", metavar="ERROR", show_default=False, help="The error asked of a sampled limit (0.001)."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the samples.")] = 0,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="SECONDS", show_default=False,
                     help="For the exact and for the sampled part each (20)."),
    ] = None,
    ratios: Annotated[
        list[str] | None,
        typer.Option("--ratio", metavar="DIM=SYMBOL", show_default=False,
                     help="A letter for the factor of a dimension; may be repeated."),
    ] = None,
    optimizer: Optimizer = "adam",
    parametrization: Parametrization = None,
    abc: Abc = None,
    regime: Regime = None,
    derivation: Annotated[bool, typer.Option("--explain", help="Print the derivation of each limit.")] = False,
    json: Json = False,
) -> Callable[[], int]:
    """Print the limits of the outputs (and of --name) as the width grows: exactly where there is a closed form.

    A network's unknown exponents are those of --parametrization, --abc, or else the derived µP.
    Exit status: 0 done, 2 bad input, 3 not covered by the theory.
    """
    return _later("limit", locals())


def _numbers(option: str, what: str) -> Any:
    return typer.Option(option, metavar="NAME=NUMBER", show_default=False,
                        help=f"{what} of a weight, a role or *; may be repeated.")


@app.command(short_help="The NNGP kernel or the tangent kernel at given inputs.")
def kernel(
    spec: Spec,
    inputs: Annotated[str, typer.Option("--inputs", metavar="X.npy", show_default=False, help="Inputs, N x d.")],
    out: Annotated[str, typer.Option("--out", metavar="K.npy", show_default=False, help="Where to write the kernel.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="nngp or ntk.")] = "ntk",
    inputs2: Annotated[
        str | None, typer.Option("--inputs2", metavar="Y.npy", show_default=False, help="Other inputs: K(X, Y).")
    ] = None,
    settings: Settings = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="VAR", show_default=False,
                     help="A variable instead of the outputs; may be repeated."),
    ] = None,
    given_inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME", show_default=False,
                     help="A data input that differs between inputs, in the order of --inputs; may be repeated."),
    ] = None,
    exponents: Annotated[
        list[str] | None,
        typer.Option("--exponent", metavar="NAME=NUMBER", show_default=False,
                     help="A declared exponent, such as alpha=1 for 1/d attention; may be repeated."),
    ] = None,
    variances: Annotated[list[str] | None, _numbers("--variance", "Variance, before its power of n,")] = None,
    multipliers: Annotated[list[str] | None, _numbers("--multiplier", "m in W = m n^-a w")] = None,
    rates: Annotated[list[str] | None, _numbers("--rate", "Factor of the learning rate")] = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", min=2, help="If sampled: a power of 2.")] = 1024,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the samples.")] = 0,
    error: Annotated[
        str | None,
        typer.Option("--error", metavar="E.npy", show_default=False, help="Where to write standard errors."),
    ] = None,
    optimizer: Optimizer = "sgd",
    parametrization: Parametrization = None,
    abc: Abc = None,
    regime: Regime = None,
    json: Json = False,
) -> Callable[[], int]:
    """Compute K(x, x') in the limit of infinite width for all pairs of inputs, and write it as a numpy array.

    Several data inputs are given as N x T x d. Without --parametrization or --abc it is the neural tangent one, ntp.
    Exit status: 0 done, 2 bad input, 3 not covered by the theory.
    """
    return _later("kernel", locals(), "kernels")


@app.command(short_help="Predicted exponents against networks of finite width.")
def confirm(
    spec: Spec,
    settings: Settings = None,
    optimizer: Optimizer = "sgd",
    parametrization: Parametrization = None,
    abc: Abc = None,
    freeze: Freeze = None,
    regime: Regime = None,
    steps: Steps = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Samples a step.", show_default=False)] = None,
    widths: Annotated[
        str | None, typer.Option("--widths", metavar="64,128,...", show_default=False, help="Widths to run at.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Runs a width.", show_default=False)] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE.jsonl",
            show_default=False,
            help="Keep finished runs here; the same command goes on from them.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", show_default=False, help="Processes to run with; one a core by default.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="SECONDS", show_default=False, help="Start no round after this time (120)."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List every check, however many.")] = False,
    json: Json = False,
) -> Callable[[], int]:
    """Train networks of several widths and compare the fitted exponents with the predicted ones.

    Without --parametrization or --abc it is the derived µP that is confirmed.
    Exit status: 0 confirmed, 1 refuted, 3 inconclusive.
    """
    return _later("confirm", locals())


def _later(verb: str, options: dict[str, Any], module: str = "verbs") -> Callable[[], int]:
    """Return what carries out a verb: outside of typer, which has its own ideas of Ctrl-C and closed pipes."""
    as_json = options.pop("json")
    options.update({name: options[name] or () for name in REPEATED & options.keys()})

    def act() -> int:
        from importlib import import_module

        answer = getattr(import_module(f"tensorprog.cli.{module}"), verb)(**options)
        write(answer, as_json)
        return answer.status

    return act
