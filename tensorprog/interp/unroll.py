"""Training as a program: forward, backward and optimizer steps of a network, unrolled into one program.

The unrolled program is in incremental form. A variable v of the network has its value v@0 at initialization and, at
step t, its increment Dv@t with v@t = v@0 + Dv@t:

    D(W x) = W0 Dx + sum_s dW_s x@t,          D phi(x) = phi(x@0 + Dx) - phi(x@0),
    D(x y) = Dx y@0 + x@t Dy,

so no line is a small difference of large numbers: exponents of changes come out exactly, and so do the changes
themselves at finite width. Each update dW_s is one Outer line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import comb
from typing import TYPE_CHECKING

from tensorprog.atoms.diff import Diff
from tensorprog.atoms.losses import loss as loss_record
from tensorprog.atoms.optimizers import optimizer as optimizer_record
from tensorprog.errors import NotCoveredError, ProgramError
from tensorprog.exponents.affine import Affine
from tensorprog.exponents.scale import ONE, Scale
from tensorprog.interp.backward import Backward
from tensorprog.interp.emit import Emitter
from tensorprog.interp.rules import Rules
from tensorprog.program.instructions import (
    Constant,
    Data,
    Input,
    MatMul,
    Moment,
    Nonlin,
    Outer,
    Param,
    ScalarType,
    VectorType,
)
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program, spell

if TYPE_CHECKING:
    from tensorprog.atoms.rule import Rule

increments = Rules("increments")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of an unrolled program and what it is.

    ``kind`` is "value" (of ``var`` at ``step``), "increment" (since step 0), "initial" (the initial matrix times the
    increment of its input), "update" (the updates so far times the input), "gradient" or "loss".
    """

    name: str
    kind: str
    var: str
    step: int
    sample: int
    param: str = ""


@dataclass(frozen=True)
class Trajectory:
    """A network's training as a program, with the index of what each line is.

    Attributes:
        network: the forward program of one sample.
        program: the unrolled program.
        entries: the lines of interest.
        steps, batch: how many steps, on how many samples.
        optimizer: the optimizer's record.
    """

    network: Program
    program: Program
    entries: tuple[Entry, ...]
    steps: int
    batch: int
    optimizer: Rule
    _index: dict = field(default_factory=dict, repr=False, compare=False)

    def find(self, kind: str, var: str | None = None, step: int | None = None, param: str | None = None) -> list[Entry]:
        """Return the entries of a kind, of a variable, at a step."""
        if not self._index:
            for e in self.entries:
                self._index.setdefault(e.kind, []).append(e)
        return [e for e in self._index.get(kind, []) if (var is None or e.var == var)
                and (step is None or e.step == step) and (param is None or e.param == param)]


def symbol(letter: str, param: str) -> str:
    """Return the name of an unknown exponent of a weight: ``a[W]``, ``b[W]``, ``c[W]``, ``eps[W]``, ``wd[W]``."""
    return f"{letter}[{param}]"


def width(program: Program) -> str:
    """Return the dimension whose powers parametrize the weights: the first that grows like n."""
    grown = [d for d in program.dims.values() if d.growth == 1]
    for d in grown:
        if d.factor == 1:
            return d.name
    if grown:
        return grown[0].name
    raise ProgramError("dim n", list(program.dims), "no dimension grows like n", "declare a width: dim n")


def unroll(network: Program, optimizer: str | Rule = "sgd", *, steps: int = 3,
           batch: int | Sequence[Mapping[str, Data]] = 1, lr: Fraction = Fraction(1),
           eps: Fraction | None = None) -> Trajectory:
    """Return the training of a network as one program.

    Args:
        network: a program with ``param`` matrices, data inputs, outputs and a loss: the forward pass of one sample.
        optimizer: a name ("sgd", "momentum", "signsgd", "adam", "adamw") or a record.
        steps: the number T of updates; the forward pass runs at steps 0 to T.
        batch: the number of samples, or for each sample the Data of every data input. Of several samples the first
            has the data that the network names; the others get generic data, or the next one-hot coordinates.
        lr: the width-independent part of the learning rate.
        eps: of adaptive optimizers; its exponent is the symbol ``eps[W]``. None: no epsilon.

    Returns:
        A Trajectory; its program has the unknown exponents ``a[W], b[W], c[W]`` (``eps[W]``, ``wd[W]``) as symbols.

    Raises:
        ProgramError: no outputs, no trainable parameter, no growing dimension.
        NotCoveredError: an output that is a vector along a growing axis.

    Example:
        >>> import tensorprog as tp
        >>> run = unroll(tp.nets.mlp(depth=1), "sgd", steps=1)
        >>> [e.name for e in run.find("update", step=1)]
        ['dW1@0.h1@1', 'dV@0.f@1']

    Source: the unrolled programs of Tensor Programs IV (SGD) and IVb (entrywise optimizers, NE⊗OR⊤ lines).
    """
    rule = optimizer_record(optimizer) if isinstance(optimizer, str) else optimizer
    return _Unroll(network, rule, steps, batch, Fraction(lr), eps).run()


class _Unroll:
    def __init__(self, network, optimizer, steps, batch, lr, eps):
        if not network.outputs:
            raise ProgramError("output", (), "training needs an output", "end the network with: output f")
        if not any(p.param.trainable for p in network.params):
            raise ProgramError("param", (), "nothing to train", "declare weights with: param W : n x n")
        self.network, self.optimizer, self.steps, self.lr = network, optimizer, steps, lr
        self.data = batch if not isinstance(batch, int) else [self._sample(i) for i in range(batch)]
        self.batch = len(self.data)
        self.eps = eps if optimizer.has_eps else None
        self.n = width(network)
        self.program = Program(network.dims.values(), loss=None, unknowns=network.unknowns)
        self.emit = Emitter(self.program)
        self.loss = loss_record(network.loss or "squared")
        self.entries: list[Entry] = []
        self.params: dict[str, Param] = {}
        self.zero_init: set[str] = set()
        # per sample: name -> value at step 0, value now, increment now
        self.first: list[dict] = [{} for _ in self.data]
        self.now: list[dict] = [{} for _ in self.data]
        self.step_of: list[dict] = [{} for _ in self.data]
        self.history: dict[str, list[tuple]] = {}
        self.updates: dict[str, list[str | None]] = {}
        self.targets: dict[tuple[str, int], str] = {}
        self.wanted = self._wanted()

    def _sample(self, i: int) -> dict[str, Data]:
        out = {}
        for line in self.network.lines:
            if isinstance(line, Input) and isinstance(line.law, Data):
                law = line.law
                if i and law.onehot is not None:
                    law = Data(onehot=(law.onehot + i) % int(self.network.dim_of(line.out).factor))
                elif i and law.values is not None:
                    law = Data()
                out[line.out] = law
        return out

    def _wanted(self) -> frozenset[str]:
        """Return the variables whose gradient is needed: those that depend on a trainable weight."""
        out: set[str] = set()
        trained = {p.out for p in self.network.params if p.param.trainable}
        for line in self.network.lines:
            if any(a in out or a in trained for a in line.args):
                out.add(line.out)
        return frozenset(out)

    def label(self, v: str, i: int) -> str:
        return v if self.batch == 1 else f"{v}#{i}"

    def at(self, v: str, i: int, t: int) -> str:
        return f"{self.label(v, i)}@{t}"

    def note(self, name: str | None, kind: str, var: str, t: int, i: int, param: str = "") -> None:
        if name is not None:
            self.entries.append(Entry(name, kind, var, t, i, param))

    # --------------------------------------------------------------------------------------------- the run

    def run(self) -> Trajectory:
        for i in range(self.batch):
            self.forward(i)
        for t in range(self.steps):
            self.update(t)
            for i in range(self.batch):
                self.advance(i, t + 1)
        return Trajectory(self.network, self.program.freeze(), tuple(self.entries), self.steps, self.batch,
                          self.optimizer)

    def forward(self, i: int) -> None:
        value = self.first[i]
        for line in self.network.lines:
            out = self.at(line.out, i, 0)
            if isinstance(line, Input):
                value[line.out] = self.input(line, i)
                continue
            if isinstance(line, MatMul):
                zero = line.matrix in self.zero_init
                name = None if zero else self.emit.matmul(out, line.matrix, value[line.vector], line.transposed)
            elif isinstance(line, Moment):
                name = self.emit.moment(out, [value[a] for a in line.args], line.mean)
            elif isinstance(line, Nonlin):
                name = self.nonlin(out, line, [value[a] for a in line.args])
            else:
                raise NotCoveredError(spell(line), line.out, "a network cannot contain an optimizer's update",
                                      "write the forward pass only")
            value[line.out] = name
            self.note(name, "value", line.out, 0, i, line.matrix if isinstance(line, MatMul) else "")
        self.now[i] = dict(value)
        self.losses(i, 0)

    def input(self, line: Input, i: int) -> str | None:
        if isinstance(line.law, Data):
            name = self.label(line.out, i)
            return self.program.add(Input(name, line.type, self.data[i].get(line.out, line.law)))
        if line.out not in self.program:
            if line.param is not None:
                self.params[line.out] = line.param
            if isinstance(line.law, Constant) and line.law.value.is_zero:
                self.zero_init.add(line.out)
            self.program.add(line)
        return line.out

    def nonlin(self, out: str, line: Nonlin, args) -> str | None:
        if isinstance(line.fn, Poly):
            return self.emit.poly(out, [
                (c, tuple(a for a, p in zip(args, powers, strict=True) for _ in range(p)))
                for c, powers in line.fn.terms
                if not any(a is None and p for a, p in zip(args, powers, strict=True))
            ])
        if all(a is None for a in args) and line.fn.arity == 1 and float(line.fn.evaluate({}, {}, 0.0)) == 0.0:
            return None
        return self.emit.nonlin(out, line.fn, args, [self.network.type_of(a) for a in line.args])

    def losses(self, i: int, t: int) -> None:
        for out in self.network.outputs:
            f, y = self.now[i][out], self.target(out, i)
            name = f"chi.{self.at(out, i, t)}"
            if self.loss.name == "squared":
                chi = self.emit.poly(name, [(ONE, (f,)), (-ONE, (y,))] if f else [(-ONE, (y,))])
            else:
                kind = self.network.type_of(out)
                chi = self.emit.nonlin(name, self.loss.gradient, (f, y), (kind, kind))
            self.now[i]["chi." + out] = chi
            self.note(chi, "loss", out, t, i)

    def target(self, out: str, i: int) -> str:
        if (out, i) not in self.targets:
            t = self.network.type_of(out)
            if isinstance(t, VectorType) and not t.dim.is_fixed:
                raise NotCoveredError(f"output {out}", f"vector {t.dim.name}",
                                      "an output along a growing axis has no loss here",
                                      "read it out with a matrix of fixed rows, or a mean")
            size = 1 if isinstance(t, ScalarType) else int(t.dim.factor)
            which = len(self.targets)
            if self.loss.name == "logistic":
                law = Data(values=tuple(Fraction(-1 if (j + which) % 2 else 1) for j in range(size)))
            elif self.loss.name == "cross_entropy":
                law = Data(onehot=which % size)
            else:
                law = Data()
            self.targets[(out, i)] = self.program.add(Input(f"target.{self.label(out, i)}", t, law))
        return self.targets[(out, i)]

    # ------------------------------------------------------------------------------------------- gradients

    def update(self, t: int) -> None:
        fresh: dict[str, list[tuple[str, str]]] = {}
        for i in range(self.batch):
            passed = Backward(
                self.emit, self.network, self.now[i], lambda v, i=i: f"d{self.at(v, i, t)}",
                lambda line, g, out, t=t: self.products(line, g, out, t, not line.transposed), self.wanted,
            )
            grads = passed.run({out: self.now[i]["chi." + out] for out in self.network.outputs})
            for v, g in grads.items():
                self.note(g, "gradient", v, t, i)
            for w, pairs in passed.pairs.items():
                fresh.setdefault(w, []).extend(pairs)
        for w, param in self.params.items():
            if not param.trainable:
                continue
            self.history.setdefault(w, []).append(tuple(fresh.get(w, ())))
            past = tuple(self.history[w])
            self.updates.setdefault(w, []).append(self.outer(w, param, past, t) if any(past) else None)

    def outer(self, w: str, param: Param, past, t: int) -> str:
        a = _given(param.a, "a", w)
        multiplier = Scale.power(self.n, -a)
        rate = Scale.of(-self.lr) * Scale.power(self.n, -_given(param.c, "c", w)) * multiplier
        unit = Scale.power(self.n, -Affine.symbol(symbol("eps", w)))
        eps = Scale.of(0) if self.eps is None else Scale.of(self.eps) * unit
        gradient = multiplier * Scale.of(Fraction(1, self.batch))
        return self.program.add(Outer(f"d{w}@{t}", self.optimizer, past, rate, gradient, w, eps))

    def decay(self, w: str, k: int) -> list[Scale]:
        """Return ``(1 - lambda n^-wd)^k`` as a sum of Scales; [1] without weight decay."""
        strength = self.optimizer.weight_decay
        if not strength or w not in self.params or not self.params[w].trainable:
            return [ONE]
        unit = Scale.of(-Fraction(strength)) * Scale.power(self.n, -Affine.symbol(symbol("wd", w)))
        return [Scale.of(comb(k, j)) * unit**j for j in range(k + 1)]

    def products(self, line: MatMul, x: str, out: str, t: int, transposed: bool) -> list[str | None]:
        """Emit the parts of ``W_t x`` (or its transpose) and return their names."""
        w = line.matrix
        past = [(s, u) for s, u in enumerate(self.updates.get(w, [])) if u is not None]
        parts: list[str | None] = []
        if w not in self.zero_init:
            base = self.emit.matmul(f"{out}.0", w, x, transposed)
            parts.append(self.weighted(f"{out}.0w", base, self.decay(w, t)))
        for s, u in past:
            part = self.emit.matmul(f"{out}.d{s}", u, x, transposed)
            parts.append(self.weighted(f"{out}.d{s}w", part, self.decay(w, t - s - 1)))
        return parts

    def weighted(self, out: str, v: str | None, coefs: Sequence[Scale]) -> str | None:
        return None if v is None else self.emit.poly(out, [(c, (v,)) for c in coefs])

    # ------------------------------------------------------------------------------------------ increments

    def advance(self, i: int, t: int) -> None:
        """Emit the forward pass of sample i at step t >= 1."""
        first, now, moved = self.first[i], self.now[i], {}
        self.step_of[i] = moved
        for line in self.network.lines:
            v = line.out
            if isinstance(line, Input):
                moved[v] = None
                continue
            d = increments[line](self, line, i, t)
            moved[v] = d
            self.note(d, "increment", v, t, i, line.matrix if isinstance(line, MatMul) else "")
            now[v] = first[v] if d is None else self.emit.total(self.at(v, i, t), [first[v], d])
            self.note(now[v], "value", v, t, i, line.matrix if isinstance(line, MatMul) else "")
        self.losses(i, t)


def _given(x: Fraction | None, letter: str, w: str) -> Affine:
    return Affine.symbol(symbol(letter, w)) if x is None else Affine.of(x)


@increments(Input)
def _input(self: _Unroll, line: Input, i: int, t: int) -> str | None:
    return None


@increments(MatMul)
def _matmul(self: _Unroll, line: MatMul, i: int, t: int) -> str | None:
    w, x, dx = line.matrix, self.now[i][line.vector], self.step_of[i][line.vector]
    out = self.at(line.out, i, t)
    parts = [self.weighted(f"Wd{out}", self.first[i][line.out], self.decay(w, t)[1:])]
    if w not in self.zero_init:
        moved = self.emit.matmul(f"W{out}", w, dx, line.transposed)
        moved = self.weighted(f"W{out}.w", moved, self.decay(w, t))
        self.note(moved, "initial", line.out, t, i, w)
        parts.append(moved)
    pushes = []
    for s, u in enumerate(self.updates.get(w, [])):
        if u is not None:
            push = self.emit.matmul(f"{u}.{out}", u, x, line.transposed)
            pushes.append(self.weighted(f"{u}.{out}.w", push, self.decay(w, t - s - 1)))
    push = self.emit.total(f"U{out}", pushes)
    self.note(push, "update", line.out, t, i, w)
    return self.emit.total(f"D{out}", [*parts, push])


@increments(Nonlin)
def _nonlin(self: _Unroll, line: Nonlin, i: int, t: int) -> str | None:
    first, now, moved = self.first[i], self.now[i], self.step_of[i]
    out = f"D{self.at(line.out, i, t)}"
    if all(moved[a] is None for a in line.args):
        return None
    if not isinstance(line.fn, Poly):
        types = [self.network.type_of(a) for a in line.args]
        both = [first[a] for a in line.args] + [moved[a] for a in line.args]
        return self.emit.nonlin(out, Diff(line.fn), both, types * 2)
    products = []
    for coef, powers in line.fn.terms:
        factors = [a for a, p in zip(line.args, powers, strict=True) for _ in range(p)]
        products += [(coef, p) for p in telescope(factors, first, now, moved)]
    return self.emit.poly(out, products)


@increments(Moment)
def _moment(self: _Unroll, line: Moment, i: int, t: int) -> str | None:
    out = f"D{self.at(line.out, i, t)}"
    products = telescope(line.args, self.first[i], self.now[i], self.step_of[i])
    parts = [self.emit.moment(f"{out}.{k}", p, line.mean) for k, p in enumerate(products)]
    return parts[0] if len(parts) == 1 else self.emit.total(out, parts)


@increments(Outer)
def _outer(self: _Unroll, line: Outer, i: int, t: int) -> str | None:
    raise NotCoveredError(spell(line), line.out, "a network cannot contain an optimizer's update",
                          "write the forward pass only")


def telescope(factors: Sequence[str], first: Mapping, now: Mapping, moved: Mapping) -> list[tuple[str, ...]]:
    """Return the products that sum to ``prod now - prod first``: one for each factor that moved."""
    out = []
    for k, f in enumerate(factors):
        product = [*(now[a] for a in factors[:k]), moved[f], *(first[a] for a in factors[k + 1:])]
        if None not in product:
            out.append(tuple(product))
    return out
