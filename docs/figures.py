"""Draw the picture of the README, docs/img/coordinate_check.svg: python docs/figures.py (ten seconds on idle cores)."""

from __future__ import annotations

from pathlib import Path

WIDTHS, SEEDS, STEPS = (64, 128, 256, 512, 1024), 8, 3


def coordinate_check():
    """Return the figure: how far h2 and f move in three steps of Adam, under SP and the derived µP."""
    from matplotlib.figure import Figure

    import tensorprog as tp
    from tensorprog import plot
    from tensorprog.finite.sweep import sweep
    from tensorprog.scaling.assign import assign

    net = tp.nets.mlp(depth=2, activation="relu")
    run = tp.unroll(net, "adam", steps=STEPS, batch=2)
    programs = {
        "standard parametrization": (run.program, assign(net, "sp", run.optimizer)),
        "derived: tensorprog derive mlp": (run.program, tp.derive(net, "adam").values),
    }
    measured = {f"step {t}": [e.name for e in run.find("increment", "h2", t)] for t in range(1, STEPS + 1)}
    runs = sweep(programs, WIDTHS, SEEDS, measure=measured)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, name in zip(axes, programs, strict=True):
        plot.coordinate_check(runs, program=name, ax=ax)
        ax.set_title(name, fontsize="medium")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("movement of h2 since initialization")
    axes[1].set_ylabel("")
    return figure


if __name__ == "__main__":
    target = Path(__file__).parent / "img"
    target.mkdir(exist_ok=True)
    # no date and fixed ids: the same numbers give the same file
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "tensorprog"
    coordinate_check().savefig(target / "coordinate_check.svg", metadata={"Date": None})
