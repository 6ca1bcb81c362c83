"""Kernels of infinitely wide networks as array functions: the NNGP kernel and the neural tangent kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.kernels import chain, grids
from tensorprog.kernels.chain import Chain
from tensorprog.kernels.covariance import Covariances, varied
from tensorprog.kernels.dots import Tied
from tensorprog.kernels.expectations import Atom, Z
from tensorprog.kernels.grids import Grid
from tensorprog.kernels.plan import Node, reachable, values
from tensorprog.kernels.readings import Number
from tensorprog.kernels.sampled import Sampler
from tensorprog.kernels.tiles import Schedule, fill
from tensorprog.program.instructions import VectorType
from tensorprog.program.program import Program, spell

if TYPE_CHECKING:
    from tensorprog.kernels.gradients import Gradients
    from tensorprog.kernels.pairwise import Pairwise

Kind = Literal["nngp", "ntk"]
Progress = Callable[[int, int], object]


class Growing(NotCoveredError):
    """The kernel itself diverges: no other way to it would help."""


def nngp(network: Program, parametrization: Any = "ntp", **options: Any) -> Kernel:
    r"""Return the covariance ``K(x, x') = lim E f(x) f(x')`` of a network's output at initialization.

    The output is a centred Gaussian process in the limit, independent and alike for every coordinate of an output along
    a fixed axis; of a vector along a width it is ``E f_i(x) f_i(x')`` of a coordinate, whose mean need not be 0.

    Args:
        network: a forward program with data inputs and an output.
        parametrization: a name ("ntp", "sp", "mup", ...), a record, or ``{weight: {"a": ..., "b": ..., "c": ...}}``.
        output: (an option, as all that follow) the variable to take instead of the network's outputs, or several.
        inputs: the data inputs that differ between inputs, in the order in which X holds them.
        variances: what stands before the power of n in a weight's variance, by name, role or "*":
            ``{"hidden": 2, "bias": 0.1}``. Biases start at zero unless theirs is given.
        multipliers: m of ``W = m n^-a w``, likewise.
        rates: the learning rate's factor, likewise (NTK only).
        exponents: of declared multipliers: ``{"alpha": 1}`` is 1/d attention, whose logits have a limit.
        optimizer: whose table of a parametrization counts, "sgd" by default.
        samples, seed: where an expectation has no dual (functions of what is not Gaussian or of several vectors,
            products of many: gated units, softmax over growing heads, batch normalization), how many points each of 8
            independent scrambles of the whole recursion takes (a power of 2), and which; see ``Kernel.estimate``.
        exact: where expectations would be sampled, take the limit of each pair of inputs by the limit engine instead:
            closed forms, or integrals over up to three Gaussians, but a tenth of a second to a minute a pair.

    Returns:
        A Kernel, order n^0.

    Raises:
        NotCoveredError: a line has no kernel formula, or the limit diverges.
        ProgramError: the network has no output or no data, or an option names no weight or has no number.

    Example:
        >>> import tensorprog as tp
        >>> k = nngp(tp.nets.mlp(depth=1, activation="relu", d_in=2), variances={"input": 0.5})
        >>> k(np.array([[1.0, 1.0], [1.0, -1.0]])).round(6)
        array([[0.5     , 0.159155],
               [0.159155, 0.5     ]])

    Source: lee2018deep, matthews2018gaussian, yang2019wide.
    """
    return Kernel("nngp", network, parametrization, **options)


def ntk(network: Program, parametrization: Any = "ntp", **options: Any) -> Kernel:
    r"""Return ``Theta(x, x') = lim sum_w n^-c <df(x)/dw, df(x')/dw>``, the kernel of gradient descent on f.

    Weights are ``W = m n^-a w`` with learning rate ``rate n^-c`` for w: a standard deviation given by ``variances``
    is one of w (it does not enter the gradient), one given by ``multipliers`` multiplies w (its square enters). What a
    parametrization does not train in the limit (input weights under "sp" with rate 1/n) adds nothing.

    Args and errors as in ``nngp``; moreover:

    Raises:
        NotCoveredError: the kernel grows with n, or stays random (a nonlinear function of outputs).

    Where the readout is not independent of all else, or a matrix is used with its transpose, products in the backward
    pass depend on the forward pass: then the kernel is that of the program of both passes, dots included.

    Example:
        >>> import tensorprog as tp
        >>> k = ntk(tp.nets.mlp(depth=1, activation="relu", d_in=1))  # E relu(g)^2 + E v^2 E step(g) x^2
        >>> k(np.array([[1.0], [2.0]])).round(12)
        array([[1., 2.],
               [2., 4.]])

    Source: jacot2018neural, yang2020tp2.
    """
    return Kernel("ntk", network, parametrization, **options)


class Kernel:
    """The NNGP or tangent kernel of a network, a function of arrays of inputs; made by ``nngp`` and ``ntk``.

    Attributes:
        kind: "nngp" or "ntk".
        method: "closed form" if every dual activation is, "quadrature" (1e-8), or "sampling", with ``error``; or "pair
            by pair, ..." where there is no array formula, but a limit for each pair.
        inputs: the data inputs, in the order in which X holds them.
        outputs: the variables it is the kernel of.

    Example:
        >>> import tensorprog as tp
        >>> k = ntk(tp.nets.mlp(activation="erf"))
        >>> k
        <Kernel: ntk of f, inputs xi, closed form>
        >>> X = np.eye(3)
        >>> k(X).shape, k(X, X[:2]).shape, bool(np.all(k.diagonal(X) == np.diag(k(X))))
        ((3, 3), (3, 2), True)
    """

    def __init__(self, kind: Kind, network: Program, parametrization: Any = "ntp", *,
                 output: Any = None, inputs: Sequence[str] | None = None, optimizer: str = "sgd",
                 variances: Mapping[str, float] | None = None, multipliers: Mapping[str, float] | None = None,
                 rates: Mapping[str, float] | None = None, exponents: Mapping[str, Any] | None = None,
                 samples: int = 1024, seed: int = 0, exact: bool = False):
        from tensorprog.atoms.optimizers import optimizer as record
        from tensorprog.scaling.assign import assign

        if not isinstance(network, Program):
            raise ProgramError("network", network, "not a program", "tp.nets.mlp(), or Program() and its lines")
        for name, given in (("variances", variances), ("multipliers", multipliers), ("rates", rates),
                            ("exponents", exponents)):
            if not isinstance(given, (Mapping, type(None))):
                raise ProgramError(name, given, "not numbers by name", f"{name}={{'hidden': 2}}")
        found = assign(network, parametrization, record(optimizer)) if network.params or network.unknowns else {}
        for name, e in (exponents or {}).items():
            if name not in found:
                raise ProgramError("exponents", name, "the network has no such exponent", "use " + ", ".join(found))
            try:
                found[name] = Fraction(e)
            except (TypeError, ValueError, ZeroDivisionError):
                raise ProgramError(f"exponents[{name}]", e, "not a rational number", f"{{{name!r}: 1}}") from None
        self.kind, self.network = kind, network
        self.outputs = _outputs(network, output)
        self.inputs = varied(network, inputs)
        if not self.inputs:
            raise ProgramError("inputs", (), "a kernel compares inputs, and the network has none", "add: input xi : d")
        if kind == "ntk" and not any(p.param.trainable for p in network.params):
            raise ProgramError("param", (), "nothing is trained", "declare weights with: param W : n x n")
        options = {"variances": variances or {}, "multipliers": multipliers or {}, "rates": rates or {}}
        self._roots: dict[tuple[str, str], Node] = {}
        self._schedules: dict[tuple[str, str], Schedule | Chain | Grid] = {}
        self._sampler: Sampler | Pairwise | None = None
        self._gradients: Gradients | None = None
        try:
            self._compile(found, options, samples, seed)
            sampled = isinstance(self._sampler, Sampler)
        except Growing:
            raise
        except NotCoveredError as error:
            from tensorprog.kernels.pairwise import pairwise

            self._sampler = pairwise(kind, network, found, self.outputs, self.inputs, options, error)
            sampled = False
        if exact and sampled:
            from tensorprog.kernels.pairwise import Pairwise

            self._sampler = Pairwise(kind, network, found, self.outputs, self.inputs, options)

    def _compile(self, found: Mapping[str, Fraction], options: Mapping[str, Any], samples: int, seed: int) -> None:
        """Make the recursion's arrays; those of the backward pass, where it meets the forward pass."""
        try:
            self._arrays(Covariances(self.network, found, inputs=self.inputs, **options), samples, seed)
        except NotCoveredError as error:
            if self.kind == "nngp" or isinstance(error, Growing):
                raise
            from tensorprog.kernels.gradients import Gradients

            try:
                self._gradients = Gradients(self.network, found, self.outputs, self.inputs, options)
                self._arrays(self._gradients.covariances, samples, seed)
            except NotCoveredError as other:
                self._gradients, self._roots = None, {}
                raise (other if isinstance(error, Tied) else error) from None

    def _arrays(self, covariances: Covariances, samples: int, seed: int) -> None:
        self.covariances = covariances
        mixed = self._gradients is not None or covariances.tied is not None
        if self.kind == "ntk" and mixed and self._gradients is None:
            raise Tied(f"matrix {covariances.tied}", covariances.tied, "it and its transpose are both used, so that "
                       "gradients depend on the forward pass", "use independent matrices")
        pairs = [(a, b) for i, a in enumerate(self.outputs) for b in self.outputs[i:]]
        if len(self.inputs) > 1 == len(pairs) and not mixed:
            output = _output(self.kind, self.network, covariances, self.outputs[0])
            if grid := grids.find(output, covariances, self.kind == "ntk"):
                self._schedules = {pairs[0]: grid}
                return
        self._roots = {names: self._root(*names, False) for names in pairs}
        self._sampler = self._sampled(samples, seed)
        if self._sampler is None:
            self._schedules = {names: self._schedule(*names) for names in pairs}

    def _sampled(self, samples: int, seed: int) -> Sampler | None:
        """Return what samples the kernel, None if every expectation has a dual."""
        if not any(x.op == "expect" for x in reachable(self._roots.values())):
            return None
        for name, x, low in (("samples", samples, 2), ("seed", seed, 0)):
            if not isinstance(x, int) or x < low or name == "samples" and x & (x - 1):
                raise ProgramError(name, x, f"not a whole number of at least {low}" + " that is a power of 2"
                                   * (name == "samples"), "samples=1024, seed=0")
        diagonals = [[self._roots[(a, b) if (a, b) in self._roots else (b, a)] for b in self.outputs]
                     for a in self.outputs]
        return Sampler(lambda: [[self._root(a, b, True) for b in self.outputs] for a in self.outputs], diagonals,
                       samples, seed)

    def _schedule(self, a: str, b: str) -> Schedule | Chain:
        cov, found = self.covariances, None
        if a == b and self._gradients is None and cov.tied is None:
            found = chain.find(cov.env[a], cov.graph, self.kind == "ntk")
        return found or Schedule(self._root(a, b, True))

    def _root(self, a: str, b: str, pair: bool) -> Node:
        cov = self.covariances
        if self._gradients is not None:
            found = self._gradients.tangent(a, b, pair)
        else:
            x, y = (_output(self.kind, self.network, cov, name) for name in (a, b))
            _prepare(self.kind, cov, pair, x, y)
            compute = cov.tangent_of if self.kind == "ntk" else cov.expectation
            found = cov.settle(lambda: compute(x, y, pair))
        growing = [e for e in found if e > 0]
        if growing:
            rate = "a learning rate that falls with n: c larger, or parametrization('sp').with_lr(1)"
            line = spell(self.network.line_of(a))
            raise Growing(line, f"n^({max(growing)})", f"the {self.kind} grows with n",
                          f"use 'ntp', or {rate}" if self.kind == "ntk" else "use 'ntp' or 'sp'")
        return found.get(Fraction(0), cov.graph.constant(0.0))

    @property
    def method(self) -> str:
        """How its numbers are found."""
        from tensorprog.kernels.dual import dual

        if self._sampler is not None:
            return "sampling" if isinstance(self._sampler, Sampler) else self._sampler.method
        roots = [*self._roots.values(), *(x.root for x in self._schedules.values() if isinstance(x, Schedule))]
        methods = {dual(*x.data).method for x in reachable(roots) if x.op == "dual"}
        methods |= {x.method for grid in self._schedules.values() if isinstance(grid, Grid) for x in grid.duals}
        return "quadrature" if "quadrature" in methods else "closed form"

    def __repr__(self) -> str:
        return f"<Kernel: {self.kind} of {', '.join(self.outputs)}, inputs {', '.join(self.inputs)}, {self.method}>"

    def __call__(self, X1: Any, X2: Any = None, *, out: np.ndarray | None = None, workers: int | None = None,
                 progress: Progress | None = None) -> np.ndarray:
        """Return the kernel of all pairs.

        Args:
            X1, X2: inputs, (N, d); (N, T, d) for T data inputs; (N,) for numbers; or arrays by the input's name.
                Without X2 it is X1, and the result is exactly symmetric.
            out: where to write, such as a memory map; of the result's shape and of the type to compute in.
            workers: threads, one a core by default.
            progress: called with (tiles done, tiles in all).

        Returns:
            (N1, N2), float32 if X1 is and else float64; for several outputs (outputs, outputs, N1, N2). Beside it, a
            few tiles of at most 200,000 numbers a thread are needed, whatever N is.

        Raises:
            ProgramError: shapes that do not fit the network's inputs, or numbers that are not finite (in single
                precision their squares must be, too).
        """
        one, n1, dtype = self._read("X1", X1)
        two, n2, _ = (one, n1, dtype) if X2 is None else self._read("X2", X2)
        _check_run(workers, progress)
        count = len(self.outputs)
        shape = (n1, n2) if count == 1 else (count, count, n1, n2)
        if out is None:
            out = np.empty(shape, dtype)
        elif not isinstance(out, np.ndarray) or out.shape != shape or out.dtype not in (np.float32, np.float64):
            what = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ProgramError("out", what, "the kernel does not fit", f"use an array of floats of shape {shape}")
        elif not out.flags.writeable:
            raise ProgramError("out", "read-only", "the kernel cannot be written there", "open it with mode='r+'")
        if self._sampler is not None:
            found, _ = self._sampler.estimate(one, None if X2 is None else two, n1, n2, workers=workers,
                                              progress=progress)
            out[...] = found if count > 1 else found[0, 0]
        known: dict[int, np.ndarray] = {}  # of single inputs, which several outputs and the diagonal ask for
        others = known if X2 is None else {}
        for (a, b), schedule in self._schedules.items():
            i, j = self.outputs.index(a), self.outputs.index(b)
            part = out if count == 1 else out[i, j]
            self._fill(schedule, (one, known), (two, others), X2 is None and a == b, part, workers, progress)
            if X2 is None:
                np.fill_diagonal(part, self._diagonal((a, b), one, n1, known))  # exact where a correlation is 1
            if a != b and X2 is None:
                out[j, i] = part.T
            elif a != b:
                mirrored = np.empty((n2, n1), out.dtype)
                self._fill(schedule, (two, others), (one, known), False, mirrored, workers, None)
                out[j, i] = mirrored.T
        return out

    def _fill(self, schedule: Schedule | Chain | Grid, one, two, symmetric: bool, out: np.ndarray, workers,
              progress) -> None:
        rows = _given(schedule, one[0], one[1], out.shape[0], out.dtype)
        cols = None if symmetric else _given(schedule, two[0], two[1], out.shape[1], out.dtype)
        fill(schedule, rows, cols, out, workers=workers, progress=progress)

    def estimate(self, X1: Any, X2: Any = None, *, workers: int | None = None,
                 progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the kernel of all pairs and its standard error (0 unless the method is "sampling").

        Arguments, errors and shapes as in a call. The error is that of a mean over 8 independent scrambles of the
        whole recursion: intervals are Student's with 7 degrees of freedom.

        Example:
            >>> import tensorprog as tp
            >>> k = nngp(tp.nets.gru(2), samples=256)
            >>> K, error = k.estimate(np.ones((1, 2, 3)))
            >>> k.method, round(float(K[0, 0]), 2), bool(0 < error[0, 0] < 0.01)
            ('sampling', 0.32, True)
        """
        if self._sampler is None:
            K = self(X1, X2, workers=workers, progress=progress)
            return K, np.zeros_like(K)
        one, n1, dtype = self._read("X1", X1)
        two, n2, _ = (None, n1, dtype) if X2 is None else self._read("X2", X2)
        _check_run(workers, progress)
        found = self._sampler.estimate(one, two, n1, n2, workers=workers, progress=progress)
        K, error = (x.astype(dtype) if len(self.outputs) > 1 else x[0, 0].astype(dtype) for x in found)
        return K, error

    def error(self, X1: Any, X2: Any = None) -> np.ndarray:
        """Return the standard error of the kernel of all pairs, 0 unless it is sampled; see ``estimate``."""
        return self.estimate(X1, X2)[1]

    def diagonal(self, X: Any) -> np.ndarray:
        """Return K(x, x) of every input, (N,); for several outputs (outputs, outputs, N)."""
        one, n, dtype = self._read("X", X)
        if self._sampler is not None:
            whole = self._sampler.diagonals_of(one, n)[0].astype(dtype)
            return whole if len(self.outputs) > 1 else whole[0, 0]
        known: dict[int, np.ndarray] = {}
        found = {names: self._diagonal(names, one, n, known).astype(dtype) for names in self._schedules}
        if len(self.outputs) == 1:
            return found[self.outputs[0], self.outputs[0]]
        return np.array([[found[min((a, b), (b, a), key=lambda p: self.outputs.index(p[0]))] for b in self.outputs]
                         for a in self.outputs])

    def _diagonal(self, names: tuple[str, str], one: dict[str, np.ndarray], n: int,
                  known: dict[int, np.ndarray]) -> np.ndarray:
        schedule = self._schedules[names]
        if isinstance(schedule, (Grid, Chain)):
            return schedule.diagonal(_given(schedule, one, known, n, np.dtype(float)), n)
        root = self._roots[names]
        with np.errstate(all="ignore"):
            found = np.asarray(values([root], one, n, fixed=known)[root.number], float)
        _check_finite(found)
        return np.broadcast_to(found, (n,))

    # --------------------------------------------------------------------------------------------- reading

    def _read(self, what: str, X: Any) -> tuple[dict[str, np.ndarray], int, np.dtype]:
        """Return the data inputs as arrays of doubles, how many there are, and the type to compute in."""
        sizes = {name: _size(self.network, name) for name in self.inputs}
        wanted = ", ".join(f"{k}: (N, {d})" if d else f"{k}: (N,)" for k, d in sizes.items())
        if isinstance(X, Mapping):
            arrays = {k: _array(f"{what}: {k}", v) for k, v in X.items()}
            if set(arrays) != set(sizes):
                raise ProgramError(what, sorted(arrays), "not the network's inputs", f"give {wanted}")
        else:
            whole = _array(what, X)
            if len(sizes) > 1 and (whole.ndim < 2 or whole.shape[1] != len(sizes)):
                raise ProgramError(what, whole.shape, f"the network has {len(sizes)} inputs",
                                   f"give (N, {len(sizes)}, ...), or a dict: {wanted}")
            arrays = {k: whole[:, i] if len(sizes) > 1 else whole for i, k in enumerate(sizes)}
        counts = set()
        for k, x in arrays.items():
            d = sizes[k]
            if x.dtype.kind not in "fiub":
                raise ProgramError(f"{what}: {k}", str(x.dtype), "inputs are real numbers", "give an array of floats")
            if d == 0 and x.ndim == 2 and x.shape[1] == 1:
                x = arrays[k] = x[:, 0]
            if x.shape[1:] != ((d,) if d else ()) or not x.ndim:
                raise ProgramError(f"{what}: {k}", x.shape, f"the axis of {k} has {d or 'no'} coordinates",
                                   f"give {wanted}, or make the network for these inputs (mlp: d_in)")
            if not np.all(np.isfinite(x)):
                raise ProgramError(f"{what}: {k}", x[~np.isfinite(x)][0], "inputs are finite", "leave such inputs out")
            counts.add(len(x))
        if len(counts) > 1:
            raise ProgramError(what, sorted(counts), "every input has as many rows", f"give {wanted}")
        single = all(x.dtype in (np.float32, np.float16) for x in arrays.values())
        doubles = {k: np.ascontiguousarray(x, float) for k, x in arrays.items()}
        return doubles, counts.pop(), np.dtype(np.float32 if single else np.float64)


def _array(what: str, X: Any) -> np.ndarray:
    try:
        return np.asarray(X)
    except ValueError:
        raise ProgramError(what, type(X).__name__, "rows of different lengths", "give an array of floats") from None


def _check_finite(x: np.ndarray) -> None:
    if not np.isfinite(x).all():
        raise ProgramError("inputs", float(x[~np.isfinite(x)][0]), f"what the kernel is made of is not finite in "
                           f"{x.dtype} at some input", "inputs nearer to 1 (or not 0, if they are normalized)")


def _check_run(workers: Any, progress: Any) -> None:
    if progress is not None and not callable(progress):
        raise ProgramError("progress", progress, "not a function", "progress=lambda done, total: print(done, total)")
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ProgramError("workers", workers, "not a number of threads", "workers=1, or None: one a core")


def _given(schedule: Schedule | Chain | Grid, data: dict[str, np.ndarray], known: dict[int, np.ndarray], n: int,
           dtype: np.dtype) -> dict[int, np.ndarray]:
    """Return what a schedule needs of every input, and add it to what is known."""
    with np.errstate(all="ignore"):
        known |= (found := values(schedule.inputs, data, n, fixed=known))
        arrays = [np.asarray(found[node.number], dtype) for node in schedule.inputs]
    out = {}
    for node, x in zip(schedule.inputs, arrays, strict=True):
        _check_finite(x)
        shape = (n, x.shape[-1]) if node.space == "vector" else (n,)
        out[node.number] = np.ascontiguousarray(np.broadcast_to(x, shape))
    return out


def _size(network: Program, name: str) -> int:
    t = network.type_of(name)
    return int(t.dim.factor) if isinstance(t, VectorType) else 0


def _outputs(network: Program, output: Any) -> tuple[str, ...]:
    if output is None:
        if not network.outputs:
            raise ProgramError("output", (), "the network has no output", "add: output f, or give output='f'")
        return network.outputs
    several = output if isinstance(output, Sequence) and not isinstance(output, str) else [output]
    names = tuple(getattr(x, "name", x) for x in several)
    for name in names:
        network.type_of(name)
    if not names or len(set(names)) < len(names):
        raise ProgramError("output", ", ".join(names), "outputs are at least one variable, each once", "output='f'")
    return names


def _output(kind: str, network: Program, cov: Covariances, name: str) -> Z:
    x = cov.env[name]
    line = spell(network.line_of(name))
    if not isinstance(x, Z):
        random = isinstance(x, Number) and x.node is None
        reason = "this is a sum over a width of random vectors" if random else "this is not random in the limit"
        error = Tied if kind == "ntk" else NotCoveredError
        raise error(line, name, reason, "take the output of a matrix: f = V @ x")
    if kind == "nngp" and not x.wide and any(e >= 0 for e in cov.settle(lambda: cov.average([x]))):
        raise NotCoveredError(line, name, "this has a mean, and a kernel is that of centred outputs",
                              "take the mean out")
    if kind == "ntk" and x.wide:
        raise NotCoveredError(line, name, "the gradient starts at a readout that is independent of everything else, "
                              "and this is a vector along a width", "read it out: f = V @ x, V : 1 x n")
    return x


def _prepare(kind: str, cov: Covariances, pair: bool, *outputs: Z) -> None:
    """Go through the products with matrices from below, so that no recursion is deep."""
    seen: set[int] = set()
    stack = list(outputs)
    found: list[Atom] = []
    while stack:
        z = stack.pop()
        for _, _, powers in z.terms:
            for a, _ in powers:
                if a.number not in seen:
                    seen.add(a.number)
                    found.append(a)
                    stack += [x for x in (a.inside if isinstance(a.inside, tuple) else (a.inside,))
                              if isinstance(x, Z)]
    for a in sorted(found, key=lambda a: a.number):
        if a.kind == "product":
            if a.value is None:
                cov.settle(lambda a=a: cov.covariance(a, a, pair))
            if kind == "ntk":
                cov.settle(lambda a=a: cov.tangent(a, a, pair))
