"""The reference tables: one row a registered record, written at every build, so that no list is kept by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def write(folder: Path) -> None:
    """Write every table into a folder, one Markdown file each."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"nonlinearities": nonlinearities, "optimizers": optimizers, "parametrizations": parametrizations,
            "losses": losses, "architectures": architectures}
    for name, table in made.items():
        (folder / f"{name}.md").write_text(table(), encoding="utf-8")


def nonlinearities() -> str:
    """Return the nonlinearities with their local facts."""
    from tensorprog.atoms.registry import nonlinearities

    return _table(
        ("name", "parity", "degree", "at infinity", "kinks", "domain", "sources"),
        ((f"`{r.name}`", r.parity or "–", _text(r.degree), _text(r.infinity), ", ".join(map(str, r.kinks)) or "–",
          r.domain, _sources(r)) for r in nonlinearities()),
    )


def optimizers() -> str:
    """Return the update rules."""
    from tensorprog.atoms.optimizers import optimizers

    return _table(
        ("name", "degree in the gradient", "gauge: c moves by", "epsilon", "weight decay", "sources"),
        ((f"`{r.name}`", r.degree, f"{r.lr_gauge} θ", "yes" if r.has_eps else "no",
          f"decoupled, {r.weight_decay}" if r.weight_decay else "no", _sources(r)) for r in optimizers()),
    )


def parametrizations() -> str:
    """Return the named parametrizations: exponents by family of optimizers and position of the weight."""
    from tensorprog.atoms.abc import FAMILIES, ROLES
    from tensorprog.atoms.parametrizations import parametrizations
    from tensorprog.errors import NotCoveredError

    rows = []
    for record in parametrizations():
        for family in FAMILIES:
            cells = []
            for fans in ROLES.values():
                try:
                    cells.append(", ".join(map(str, record.triple(*fans, family))))
                except NotCoveredError:
                    cells.append("–")
            if set(cells) != {"–"}:
                rows.append((f"`{record.name}`", family, *cells, record.regime(family).verdict, _sources(record)))
    return _table(("name", "optimizers", *(f"{role}: a, b, c" for role in ROLES), "verdict", "sources"), rows)


def losses() -> str:
    """Return the losses."""
    from tensorprog.atoms.losses import losses

    return _table(("name", "sources"), ((f"`{r.name}`", _sources(r)) for r in losses()))


def architectures() -> str:
    """Return the architectures with their options."""
    import inspect

    from tensorprog.nets import ARCHITECTURES

    return _table(
        ("name", "options (`--set key=value`)", "what it is"),
        ((f"`{name}`", ", ".join(f"`{p.name}={p.default}`" for p in inspect.signature(make).parameters.values()
                                 if p.name != "regime"), _summary(make)) for name, make in ARCHITECTURES.items()),
    )


def _summary(make) -> str:
    first = (make.__doc__ or "").strip().split("\n", 1)[0]
    return first.removeprefix("Return ").replace("``", "`")


def _text(e) -> str:
    return "–" if e is None else str(e)


def _sources(record) -> str:
    return ", ".join(f"`{s}`" for s in getattr(record, "sources", ())) or "–"


def _table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    def line(cells) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |\n"

    return line(head) + line("---" for _ in head) + "".join(map(line, rows))
