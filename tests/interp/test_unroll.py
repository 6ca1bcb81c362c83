"""Unrolled training against an independent trainer, number by number; symmetries that must change nothing."""

from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.errors import NotCoveredError, ParseError, ProgramError
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run
from tensorprog.interp.unroll import symbol, unroll
from tensorprog.program.instructions import Data, Outer

from . import trainer

N, STEPS, BATCH = 6, 3, 2
OPTIMIZERS = ("sgd", "momentum", "signsgd", "adam", "adamw")
LETTERS = ("a", "b", "c", "wd", "eps")


def random_abc(network, rng, extra=()):
    """Return random exponents, different for every weight, and their values as the package takes them."""
    abc, values = {}, {}
    for p in network.params:
        a, b, c, wd, e = (Fraction(int(k), 4) for k in rng.integers(-2, 3, size=5))
        b += Fraction(1, 2) if not p.type.cols.is_fixed else 0
        c += Fraction(3, 4)
        abc[p.out] = tuple(float(x) for x in (a, b, c, abs(wd), e))
        values |= {symbol(letter, p.out): x for letter, x in zip(LETTERS, (a, b, c, abs(wd), e), strict=True)}
    return abc, values | dict(extra)


def first_weights(network, abc, draws):
    """Return the first matrices: n^-(a+b) times the standard normals that bear their names, or constants."""
    sizes = network.sizes(N)
    out = {}
    for p in network.params:
        shape = sizes[p.type.rows.name], sizes[p.type.cols.name]
        if p.param.init == "normal":
            out[p.out] = float(N) ** -(abc[p.out][0] + abc[p.out][1]) * draws.normal(p.out, shape)
        else:
            out[p.out] = np.full(shape, {"zero": 0.0, "one": 1.0}[p.param.init])
    return out


def package(network, values, draws, *, optimizer, steps=STEPS, batch=BATCH, lr=Fraction(1, 4), eps=None):
    """Return the outputs of every sample at every step, and the trajectory."""
    t = unroll(network, optimizer, steps=steps, batch=batch, lr=lr, eps=eps)
    names = [e.name for e in t.entries if e.kind == "value" and e.var in network.outputs]
    r = run(t.program, N, 0, values=values, draws=draws, method="dense", keep=names)
    size = t.batch
    out = [[{} for _ in range(size)] for _ in range(steps + 1)]
    for e in t.entries:
        if e.kind == "value" and e.var in network.outputs:
            out[e.step][e.sample][e.var] = r[e.name]
    return out, t


def assert_same(mine, theirs, rtol=1e-9):
    for step, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        for x, y in zip(a, b, strict=True):
            assert set(x) <= set(y)
            for name in y:  # an output that is exactly zero has no line
                np.testing.assert_allclose(x.get(name, 0.0), np.real(y[name]), rtol=rtol, atol=1e-12,
                                           err_msg=f"{name} at step {step}")


def vector(network, draws, t, out, sample):
    """Return the target that the unrolled program draws."""
    name = f"target.{out}#{sample}" if t.batch > 1 else f"target.{out}"
    law = t.program.line_of(name).law
    size = int(network.type_of(out).dim.factor)
    return np.eye(size)[law.onehot] if law.onehot is not None else draws.data(name, (size,))


def data(network, draws, t, name, sample):
    label = f"{name}#{sample}" if t.batch > 1 else name
    law = t.program.line_of(label).law
    size = int(network.type_of(name).dim.factor)
    return law.onehot if law.onehot is not None else draws.data(label, (size,))


def compare(network, forward, loss, *, optimizer, seed=0, extra=(), eps=None, frozen=()):
    """Assert that the unrolled program and the independent trainer agree; returns the outputs."""
    draws, lr = Draws(N, 0), Fraction(1, 4)
    abc, values = random_abc(network, np.random.default_rng(seed), extra)
    mine, t = package(network, values, draws, optimizer=optimizer, lr=lr, eps=eps)
    samples = range(t.batch)
    inputs = [x.out for x in network.lines if hasattr(x, "law") and isinstance(x.law, Data)]
    outputs, losses = [], []
    for i in samples:
        xs = {name: data(network, draws, t, name, i) for name in inputs}
        ys = {out: vector(network, draws, t, out, i) for out in network.outputs}
        outputs.append(lambda W, xs=xs: forward(W, xs))
        losses.append(lambda f, ys=ys: sum(loss(f[out], y) for out, y in ys.items()))
    theirs = trainer.train(outputs, losses, first_weights(network, abc, draws), abc, n=N, optimizer=optimizer,
                           lr=float(lr), steps=STEPS, decay=0.1 if optimizer == "adamw" else 0.0,
                           eps=float(eps or 0), frozen=frozen)
    assert_same(mine, theirs)
    moved = [np.max(np.abs(a - b)) for x, y in zip(theirs[0], theirs[-1], strict=True)
             for a, b in zip(x.values(), y.values(), strict=True)]
    assert min(moved) > 1e-3, "a test in which nothing moves says nothing"
    return mine


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("depth, bias", [(1, False), (3, True)])
def test_mlp(depth, bias, optimizer):
    net = tp.nets.mlp(depth, bias=bias, d_out=2)
    compare(net, lambda W, x: trainer.mlp(W, x["xi"], depth=depth, bias=bias), trainer.squared, optimizer=optimizer)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_epsilon_is_inside_the_denominator_and_scales(optimizer):
    net = tp.nets.mlp(2, d_out=2)
    compare(net, lambda W, x: trainer.mlp(W, x["xi"], depth=2, bias=False), trainer.squared, optimizer=optimizer,
            eps=Fraction(1, 10))


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("block, normalize, activation", [(1, "none", "relu"), (2, "layernorm", "gelu")])
def test_resnet(block, normalize, activation, optimizer):
    net = tp.nets.resnet(2, block=block, normalize=normalize, activation=activation)
    phi = getattr(trainer, activation)
    compare(net, lambda W, x: trainer.resnet(W, x["xi"], depth=2, block=block, norm=normalize != "none", phi=phi),
            trainer.squared, optimizer=optimizer, seed=3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("regime", [{"heads": 0, "d_head": 1}, {"heads": 1, "d_head": 0}], ids=["wide", "many"])
def test_transformer(regime, optimizer):
    alpha = Fraction(1)
    net = tp.nets.transformer(1, tokens=3, heads=2, ffn=2, vocab=4, regime=regime)
    grown = regime["heads"] == 1
    d_head = net.sizes(N)["d_head"]
    compare(net, lambda W, x: trainer.transformer(
        W, [x[f"tok{t}"] for t in (1, 2, 3)], [x[f"pos{t}"] for t in (1, 2, 3)], depth=1, parts=2, grown=grown,
        scale=d_head ** -float(alpha)), trainer.cross_entropy, optimizer=optimizer, extra={"alpha": alpha}, seed=1)


def zero_readout():
    p = tp.Program(loss="squared")
    n = p.dim("n")
    W1, W2 = p.param("W1", n, p.dim("d_in", 3)), p.param("W2", n, n)
    b, V = p.param("W2_b", n, p.dim("unit", 1), init="zero"), p.param("V", p.dim("d_out", 2), n, init="zero")
    one = p.constant("one", p.dims["unit"])
    x = tp.tanh(W1 @ p.data("xi", p.dims["d_in"]))
    p.output(p.let("f", V @ tp.tanh(W2 @ x + b @ one)))
    return p.freeze()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_exact_zeros(optimizer):
    def forward(W, x):
        h = W["W2"] @ np.tanh(W["W1"] @ x["xi"]) + W["W2_b"][:, 0]
        return {"f": W["V"] @ np.tanh(h)}

    out = compare(zero_readout(), forward, trainer.squared, optimizer=optimizer)
    assert out[0] == [{}, {}], "zero times anything is no line"


def test_zero_readout_moves_the_features_at_step_two_only():
    t = unroll(zero_readout(), "sgd", steps=2)
    moved = {(e.var, e.step) for e in t.entries if e.kind == "increment" and e.name in t.program}
    assert ("f", 1) in moved and not any(step == 1 and var != "f" for var, step in moved)
    assert any(step == 2 and var != "f" for var, step in moved)


def test_frozen_weights_stay():
    net = tp.nets.mlp(2, d_out=2)
    from tensorprog.scaling.derive import prepared

    frozen = prepared(net, freeze=("W1", "V"))
    compare(frozen, lambda W, x: trainer.mlp(W, x["xi"], depth=2, bias=False), trainer.squared, optimizer="adamw",
            frozen=("W1", "V"))
    t = unroll(frozen, "sgd")
    assert {x.param for x in t.program.lines if isinstance(x, Outer)} == {"W2"}


def rnn(times=3):
    """One W used at several times, U at each, and W's transpose once."""
    p = tp.Program(loss="squared")
    n, d = p.dim("n"), p.dim("d", 3)
    W, U, V = p.param("W", n, n), p.param("U", n, d), p.param("V", p.dim("d_out", 1), n)
    h = tp.tanh(U @ p.data("x1", d))
    for t in range(2, times + 1):
        h = tp.tanh(W @ h + U @ p.data(f"x{t}", d))
    p.output(p.let("f", V @ (h + W.T @ h)))
    return p.freeze()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_shared_weight_sums_the_gradients_of_its_uses(optimizer):
    def forward(W, x):
        h = np.tanh(W["U"] @ x["x1"])
        for t in (2, 3):
            h = np.tanh(W["W"] @ h + W["U"] @ x[f"x{t}"])
        return {"f": W["V"] @ (h + W["W"].T @ h)}

    compare(rnn(), forward, trainer.squared, optimizer=optimizer)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gauge_symmetry(optimizer):
    """a + t, b - t, c - k t (and eps + t): the same training, weight by weight."""
    net = tp.nets.mlp(2, bias=True, d_out=2)
    rng = np.random.default_rng(4)
    _, values = random_abc(net, rng)
    k = 2 if optimizer in ("sgd", "momentum") else 1
    eps = Fraction(1, 10) if "adam" in optimizer else None
    shifted = dict(values)
    for p in net.params:
        t = Fraction(int(rng.integers(-4, 5)), 4)
        for letter, step in (("a", t), ("b", -t), ("c", -k * t), ("eps", t)):
            shifted[symbol(letter, p.out)] += step
    draws = Draws(N, 0)
    one, two = (package(net, v, draws, optimizer=optimizer, eps=eps)[0] for v in (values, shifted))
    assert_same(one, two)
    wrong = dict(shifted)
    wrong[symbol("c", "W2")] += Fraction(1, 4)
    with pytest.raises(AssertionError):
        assert_same(one, package(net, wrong, draws, optimizer=optimizer, eps=eps)[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name, options", [("mlp", {"depth": 2, "bias": True}), ("transformer", {"depth": 1})])
def test_the_published_forms_are_one_training(name, options, optimizer):
    net = tp.nets.ARCHITECTURES[name](**options)
    derived = tp.derive(net, optimizer, form="table3")
    draws = Draws(N, 0)
    eps = Fraction(1, 100) if "adam" in optimizer else None
    runs = [package(net, derived.in_form(form).values, draws, optimizer=optimizer, eps=eps)[0]
            for form in ("table3", "table8", "table9", "global")]
    for other in runs[1:]:
        assert_same(runs[0], other, rtol=1e-8)


def test_a_batch_may_give_the_data_of_every_sample():
    point = {"xi": Data(values=(Fraction(1), Fraction(-1, 2), Fraction(2)))}
    t = unroll(tp.nets.mlp(2), "sgd", batch=[point, {}])
    assert t.program.line_of("xi#0").law == point["xi"] and t.program.line_of("xi#1").law == Data()


def test_refusals():
    p = tp.Program()
    n = p.dim("n")
    W = p.param("W", n, n)
    h = W @ p.vector("x", n)
    with pytest.raises(ProgramError, match="needs an output"):
        unroll(p)
    p.output(p.let("h", h))
    with pytest.raises(NotCoveredError, match="growing axis"):
        unroll(p)
    q = tp.Program()
    m = q.dim("n")
    q.output(q.let("f", q.mean(q.matrix("W", m, m) @ q.vector("x", m))))
    with pytest.raises(ProgramError, match="nothing to train"):
        unroll(q)
    with pytest.raises(ParseError, match="adan"):
        unroll(tp.nets.mlp(1), "adan")
