"""Figures, by matplotlib: every function takes Axes (or makes them) and returns them; none shows or saves anything.

Needs ``pip install 'tensorprog[plot]'``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorprog.errors import MissingExtraError, RunError
from tensorprog.finite.confirm import Confirmation
from tensorprog.finite.converge import Convergence
from tensorprog.finite.fit import Verdict
from tensorprog.finite.limit import Limit
from tensorprog.finite.sweep import Sweep
from tensorprog.spectra.density import Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {Verdict.CONFIRMED: "tab:green", Verdict.REFUTED: "tab:red", Verdict.INCONCLUSIVE: "tab:orange"}


def coordinate_check(result: Confirmation | Sweep, labels: Iterable[str] | None = None, *, program: str | None = None,
                     predictions: Mapping[str, Fraction | None] | None = None, ax: Axes | None = None) -> Axes:
    """Draw sizes against width, both logarithmic, with the predicted slopes dashed.

    Args:
        result: a Confirmation, or a Sweep.
        labels: which checks or measured labels, by default all.
        program: of a Sweep of several programs, the label of one.
        predictions: exponents by label, where ``result`` does not know them.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        RunError: if there is no such label, or several programs and none is named.
        MissingExtraError: if matplotlib is not installed.

    Example:
        >>> import tensorprog as tp
        >>> from tensorprog.finite.confirm import confirm_exponents
        >>> p = tp.Program()
        >>> n = p.dim("n")
        >>> x, y = p.vector("x", n), p.vector("y", n)
        >>> p.output(p.let("s", p.mean(x * y)))
        >>> c = confirm_exponents(p, {"s": Fraction(-1, 2), "x": Fraction(0)}, widths=(64, 128, 256, 512), seeds=8)
        >>> ax = coordinate_check(c)
        >>> ax.get_xlabel(), [t.get_text() for t in ax.get_legend().get_texts()]
        ('width n', ['s', 'x'])
    """
    if isinstance(result, Confirmation):
        predictions = {c.what: c.predicted for c in result.checks} | dict(predictions or {})
        sweep, known = result.sweep, [c.what for c in result.checks]
        if sweep is None:
            raise RunError("coordinate_check", result, "this confirmation has no runs", "make it with confirm")
        program = next(iter(next(iter(sweep.records.values()))), "")
    else:
        sweep, predictions = result, dict(predictions or {})
        program, known = _one_program(sweep, program)
    chosen = list(known if labels is None else labels)
    for label in chosen:
        if label not in known:
            raise RunError(f"coordinate_check {label}", label, "this was not measured", "use " + ", ".join(known))
    ax = ax if ax is not None else _new_axes()
    for label in chosen:
        samples = sweep.samples(program, label)
        widths = sorted(samples)
        sizes = [_root_mean_square(samples[n]) for n in widths]
        if not all(size > 0 for size in sizes):
            continue  # exact zeros have no place on a logarithmic axis
        (line,) = ax.plot(widths, sizes, "o-", markersize=3, linewidth=1.2, label=label)
        e = predictions.get(label)
        if e is not None:
            middle = len(widths) // 2
            guide = [sizes[middle] * (n / widths[middle]) ** float(e) for n in widths]
            ax.plot(widths, guide, "--", color=line.get_color(), linewidth=0.8)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("width n")
    ax.set_ylabel("root mean square size")
    if ax.get_lines():
        ax.legend(fontsize="small")
    return ax


def exponents(result: Confirmation, *, ax: Axes | None = None) -> Axes:
    """Draw measured exponents with their 99% intervals over the predicted ones (grey bars), one row a check.

    Args:
        result: a Confirmation.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Example:
        >>> import tensorprog as tp
        >>> from tensorprog.finite.confirm import confirm_exponents
        >>> p = tp.Program()
        >>> x = p.vector("x", p.dim("n"))
        >>> c = confirm_exponents(p, {"x": Fraction(0)}, widths=(64, 128, 256, 512), seeds=4)
        >>> [t.get_text() for t in exponents(c).get_yticklabels()]
        ['x']
    """
    ax = ax if ax is not None else _new_axes()
    rows = [(c, float(c.predicted)) for c in result.checks if c.predicted is not None and math.isfinite(c.fit.slope)]
    for y, (c, predicted) in enumerate(rows):
        colour = _COLOURS[c.verdict]
        ax.plot([c.fit.low, c.fit.high], [y, y], "-", color=colour, linewidth=1.5)
        ax.plot([c.fit.slope], [y], "o", color=colour, markersize=4)
        ax.plot([predicted] * 2, [y - 0.35, y + 0.35], "-", color="0.4", linewidth=2, zorder=0)
    ax.set_yticks(range(len(rows)), [c.what for c, _ in rows])
    ax.invert_yaxis()
    ax.set_xlabel("exponent of n")
    return ax


def convergence(result: Convergence, others: Mapping[str, float] | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw values at finite width against their limit: means over seeds with one standard deviation, by width.

    Args:
        result: a Convergence.
        others: more levels to compare with, by their names in the legend.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Example:
        >>> import tensorprog as tp
        >>> from tensorprog.finite.converge import converge
        >>> p = tp.parse("dim n\\nvector x : n\\nq = mean(relu(x)**2)")
        >>> ax = convergence(converge(p, "q", 0.5, [16, 64, 256, 1024], seeds=8), {"of |x|": 1.0})
        >>> [t.get_text() for t in ax.get_legend().get_texts()]
        ['limit 0.5', 'of |x|', 'q']
    """
    ax = ax if ax is not None else _new_axes()
    ax.axhline(result.limit, color="tab:green", linewidth=1.2, label=f"limit {result.limit:.6g}")
    for k, (label, level) in enumerate((others or {}).items()):
        ax.axhline(level, color="tab:red", linewidth=1.2, linestyle=("--", ":", "-.")[k % 3], label=label)
    ax.errorbar([r.n for r in result.rows], [r.mean for r in result.rows], [r.spread for r in result.rows],
                fmt="o", color="0.2", markersize=3, capsize=2, linewidth=1, label=result.name)
    ax.set_xscale("log", base=2)
    ax.set_xlabel("width n")
    ax.legend(fontsize="small")
    return ax


def coordinates(values: Any, laws: Mapping[str, Limit], *, bins: int = 60, samples: int = 400_000, seed: int = 0,
                ax: Axes | None = None) -> Axes:
    """Draw a histogram of a vector's coordinates, and over it the laws of Z that predict it.

    Args:
        values: the coordinates, shape (n,).
        laws: limits of vectors (not sampled ones), by their names in the legend.
        bins: of the histogram.
        samples: of each Z; seed: of the samples.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        RunError: a limit that is no vector's, or that was sampled and so has no law.

    Example:
        >>> import tensorprog as tp
        >>> p = tp.parse("dim n\\nmatrix W : n x n\\nvector x : n\\ny = relu(W @ x)")
        >>> values = np.maximum(np.random.default_rng(0).standard_normal(1000), 0)
        >>> ax = coordinates(values, {"relu of a Gaussian": p.limit("y")}, samples=1000)
        >>> [t.get_text() for t in ax.get_legend().get_texts()]
        ['coordinates', 'relu of a Gaussian']
    """
    ax = ax if ax is not None else _new_axes()
    values = np.asarray(values, float)
    edges = np.histogram_bin_edges(values, bins)
    ax.hist(values, edges.tolist(), density=True, color="0.85", label="coordinates")
    for k, (label, limit) in enumerate(laws.items()):
        z = _draw(limit, samples, seed)
        density = np.histogram(z, edges)[0] / (len(z) * np.diff(edges))
        ax.stairs(density, edges, color=f"C{k}", linewidth=1.5, linestyle=("-", "--", ":", "-.")[k % 4], label=label)
    ax.set_yticks([])
    ax.legend(fontsize="small")
    return ax


def _draw(limit: Limit, size: int, seed: int) -> np.ndarray:
    """Return samples of the Z of a vector's limit."""
    if limit.kind != "vector" or limit.limits is None:
        raise RunError(f"limit of {limit.name}", limit.method, "this limit is not the law of a vector's coordinates",
                       "take program.limit(name, method='exact') of a vector")
    import sympy

    space, chain = limit.limits.space, limit.limits.chain
    z = limit.limits.z(limit.variable)
    sources = sorted(space.support(z))
    covariance = np.array([[float(chain.value(space.covariance(i, j))) for j in sources] for i in sources])
    values, vectors = np.linalg.eigh(covariance.reshape(len(sources), len(sources)))
    mean = np.array([float(chain.value(space.atoms[i].mean)) for i in sources])
    normal = np.random.default_rng(seed).standard_normal((size, len(sources)))
    drawn = normal @ (vectors * np.sqrt(np.maximum(values, 0))).T + mean
    symbols = sympy.symbols(f"z1:{len(sources) + 1}", real=True)
    formula: Any = space.express(z, dict(zip(sources, symbols, strict=True)))
    known = {s: sympy.Float(chain.value(s)) for s in formula.free_symbols if s in chain.definitions}
    fn = sympy.lambdify(symbols, formula.xreplace(known).evalf(17), "numpy")
    return np.broadcast_to(np.asarray(fn(*drawn.T), float), (size,))


def spectrum(law: Spectrum, eigenvalues: Any = None, *, roots: bool = False, bins: int = 60,
             ax: Axes | None = None) -> Axes:
    """Draw the density of a spectrum over a histogram of eigenvalues; atoms are lines with their weights.

    Args:
        law: a Spectrum.
        eigenvalues: those of a matrix at finite width, an array; None for none.
        roots: draw square roots: the singular values, of a spectrum of their squares.
        bins: of the histogram.
        ax: the Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Example:
        >>> import tensorprog as tp
        >>> from tensorprog.spectra.moments import eigenvalues
        >>> from tensorprog.spectra.sample import sample_eigenvalues
        >>> p = tp.Program()
        >>> n = p.dim("n")
        >>> W = p.matrix("W", n, n, variance=n**-1 / 2)
        >>> ax = spectrum(eigenvalues(W + W.T, 8), sample_eigenvalues(W + W.T, 200))
        >>> [t.get_text() for t in ax.get_legend().get_texts()]
        ['limit', '200 eigenvalues']
    """
    ax = ax if ax is not None else _new_axes()

    def place(x):
        return np.sqrt(np.maximum(x, 0.0)) if roots else np.asarray(x, float)

    ends = place([x for part in law.support for x in part] + [x for x, _ in law.atoms])
    values = np.array([]) if eigenvalues is None else place(eigenvalues)
    low, high = float(min([*ends, *values])), float(max([*ends, *values]))
    margin = 0.03 * (high - low) or 1.0
    label = "limit"
    for a, b in law.support:
        start, end = place([a, b])
        # crowded at the ends, where densities begin or diverge
        x = start + (end - start) * np.sin(np.linspace(0.0, np.pi / 2, 402)[1:-1]) ** 2
        ax.plot(x, law.root_density(x) if roots else law.density(x), color="tab:red", linewidth=1.5, label=label)
        label = "_nolegend_"
    continuous = np.ones(len(values), bool)
    for x, weight in law.atoms:
        here = np.abs(values - place(x)) < 1e-6 * (high - low)
        continuous &= ~here
        seen = f", seen {here.mean():.3g}" if len(values) else ""
        spot = float(place(x))
        ax.axvline(spot, color="tab:red", linestyle=":", label=f"{weight:.3g} at {spot:.3g}{seen}")
    edges = [float(x) for x in np.linspace(low - margin, high + margin, bins + 1)]
    if len(values):
        share = np.full(int(continuous.sum()), 1 / (len(values) * (edges[1] - edges[0])))
        heights, _, _ = ax.hist(values[continuous], edges, weights=share, color="0.75", zorder=0,
                                label=f"{len(values)} eigenvalues")
        ax.set_ylim(0, 1.15 * float(np.max(heights)) or None)
    ax.set_xlabel("singular value" if roots else "eigenvalue")
    ax.set_ylabel("density")
    ax.legend(fontsize="small")
    return ax


def _one_program(sweep: Sweep, program: str | None) -> tuple[str, list[str]]:
    first = next(iter(sweep.records.values()), {})
    if program is None and len(first) == 1:
        program = next(iter(first))
    if program is None or program not in first:
        near = ", ".join(first)
        raise RunError("coordinate_check", program, "which program of the sweep?", f"use program= one of {near}")
    return program, list(first[program])


def _root_mean_square(sizes: list[float]) -> float:
    return (sum(x * x for x in sizes) / len(sizes)) ** 0.5


def _new_axes() -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError.of("matplotlib", "plot", "tensorprog.plot") from None
    # not pyplot: it would choose a window system and keep the figure alive
    return Figure(figsize=(5, 3.5), layout="constrained").subplots()
