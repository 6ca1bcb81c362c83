"""The emitted backward program against central differences and against torch, on architectures and random networks."""

from fractions import Fraction

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.atoms.losses import loss as loss_record
from tensorprog.atoms.multivariate import Softmax
from tensorprog.atoms.registry import nonlinearity
from tensorprog.errors import NotCoveredError
from tensorprog.exponents.scale import ONE
from tensorprog.finite.draws import Draws
from tensorprog.finite.numpy_backend import run
from tensorprog.interp.backward import Backward
from tensorprog.interp.emit import Emitter
from tensorprog.interp.unroll import symbol, unroll
from tensorprog.program.build import apply
from tensorprog.program.instructions import Input, MatMul, MatrixType, Moment, Nonlin, Normal, Outer
from tensorprog.program.poly import Poly
from tensorprog.program.program import Program

N = 5
#: Smooth everywhere, so that central differences converge.
SMOOTH = ("tanh", "sin", "erf", "sigmoid", "gelu", "softplus", "cos", "gaussian", "silu")

NETWORKS = {
    "mlp": lambda: tp.nets.mlp(3, activation="gelu", bias=True, d_out=2),
    "mlp_logistic": lambda: tp.nets.mlp(1, d_out=2, loss="logistic"),
    "resnet1": lambda: tp.nets.resnet(2, activation="tanh"),
    "resnet2": lambda: tp.nets.resnet(2, block=2, normalize="rmsnorm", activation="tanh", bias=True),
    "resnet_layernorm": lambda: tp.nets.resnet(1, normalize="layernorm", activation="silu"),
    "transformer": lambda: tp.nets.transformer(1, tokens=3, ffn=2, bias=True),
    "transformer_many_heads": lambda: tp.nets.transformer(1, tokens=3, ffn=2, regime={"heads": 1}, normalize="rmsnorm"),
}


def random_network(rng: np.random.Generator) -> Program:
    """Return a network of random lines: every instruction, shared weights and transposes, scalars among vectors."""
    p = Program(loss="squared")
    n, m, d, unit = p.dim("n"), p.dim("m", factor=2), p.dim("d", 3), p.dim("unit", 1)
    weights = [p.param("W", n, n), p.param("U", m, n), p.param("A", n, d)]
    gain = p.param("g", n, unit, init="one") @ p.constant("one", unit)
    vectors = [weights[2] @ p.data("xi", d), gain, p.vector("z", n)]
    scalars = [p.mean(vectors[0] * gain)]

    def pick(xs):
        return xs[int(rng.integers(len(xs)))]

    def along(x):
        return [v for v in vectors if v.dim == x.dim]

    def multiply():
        x = pick(vectors)
        fits = [w for v in weights for w in (v, v.T) if w.cols == x.dim]
        return pick(fits) @ x if fits else None

    def unary():
        return apply(pick(SMOOTH), pick(vectors))

    def polynomial():
        x = pick(vectors)
        y, s = pick(along(x)), pick(scalars)
        return Fraction(1, 2) * x * y * s - s**2 * x + pick([x * x * y, y / 3, x + Fraction(1, 3)])

    def softmax():
        x = pick(vectors)
        args = [pick(along(x)), x, pick([*scalars, *along(x)])]
        return apply(Softmax(3, int(rng.integers(3))), *args)

    def norm():
        x = pick(vectors)
        c = x - p.mean(x)
        return c * apply(nonlinearity("rsqrt", Fraction(1, 10)), p.mean(c * c))

    def moment():
        x = pick(vectors)
        y, z = pick(along(x)), pick(along(x))
        return pick([lambda: p.mean(x * y * z), lambda: p.sum(x * y) / x.dim, lambda: p.mean(x)])()

    def scalar():
        s, t = pick(scalars), pick(scalars)
        return pick([lambda: apply("tanh", s), lambda: s * t + s**3 / 4 - 1, lambda: apply(Softmax(2, 1), s, t)])()

    for i in range(int(rng.integers(8, 14))):
        made = pick([multiply, multiply, unary, unary, polynomial, softmax, norm, moment, scalar])()
        if made is None:
            continue
        made = p.let(f"y{i}", made)
        (scalars if isinstance(p.line_of(made.name), Moment) or not hasattr(made, "dim") else vectors).append(made)
    V = p.param("V", p.dim("d_out", 2), n)
    last = [v for v in vectors if v.dim == n][-1]
    p.output(p.let("f", V @ last), p.let("q", p.mean(vectors[-1] * vectors[-1])))
    p.output(p.let("r", apply("tanh", scalars[-1])))
    return p.freeze()


def values_of(network, rng):
    """Return moderate exponents: nothing is large or small at n = 5."""
    out = {name: Fraction(1) for name in network.unknowns}
    for p in network.params:
        a = Fraction(int(rng.integers(-1, 2)), 2)
        fan_in = Fraction(0) if p.type.cols.is_fixed else Fraction(1, 2)
        out |= {symbol("a", p.out): a, symbol("b", p.out): fan_in - a, symbol("c", p.out): Fraction(0)}
    return out


def evaluate(network, weights, draws, values, targets):
    """Return the loss of a network, line by line in plain numpy, at given weights."""
    sizes, env = network.sizes(N), {}
    for line in network.lines:
        if isinstance(line, Input):
            env[line.out] = weights[line.out] if line.out in weights else given(line, draws, sizes, values)
        elif isinstance(line, MatMul):
            env[line.out] = (env[line.matrix].T if line.transposed else env[line.matrix]) @ env[line.vector]
        elif isinstance(line, Nonlin):
            env[line.out] = line.fn.evaluate(sizes, values, *(env[a] for a in line.args))
        else:
            product = np.prod(np.stack([env[a] for a in line.args]), axis=0)
            env[line.out] = product.mean() if line.mean else product.sum()
    loss = loss_record(network.loss or "squared")
    return sum(float(np.sum(loss.value(env[out], targets[out]))) for out in network.outputs)


def given(line, draws, sizes, values):
    """Return an input that is no weight, as the runner draws it."""
    law, dims = line.law, line.type
    if isinstance(dims, MatrixType):
        shape = sizes[dims.rows.name], sizes[dims.cols.name]
    else:
        shape = (sizes[dims.dim.name],) if hasattr(dims, "dim") else ()
    if isinstance(law, Normal):
        return law.mean.at(sizes, values) + law.variance.at(sizes, values) ** 0.5 * draws.normal(line.out, shape)
    if hasattr(law, "value"):
        return np.full(shape, law.value.at(sizes, values))
    if law.onehot is not None:
        return np.eye(shape[0])[law.onehot]
    return draws.data(line.out, shape) if law.values is None else np.array([float(x) for x in law.values])


def gradients(network, values, draws):
    """Return dL/dW of every weight, from the pairs of the emitted backward pass, the first weights and the targets."""
    t = unroll(network, "sgd", steps=1)
    outers = {x.param: x for x in t.program.lines if isinstance(x, Outer)}
    names = {a for x in outers.values() for a in x.args} | {f"target.{out}" for out in network.outputs}
    r = run(t.program, N, 0, values=values, draws=draws, method="dense", keep=names)
    found = {}
    for w, line in outers.items():
        (pairs,) = line.pairs
        # ``gradient`` is n^-a: undo it, to compare derivatives by W and not by w
        found[w] = sum(np.outer(r[u], r[v]) for u, v in pairs)
        assert line.gradient.at(network.sizes(N), values) == pytest.approx(N ** -float(values[symbol("a", w)]))
    return found, {out: r[f"target.{out}"] for out in network.outputs}


def first_weights(network, values, draws):
    return {p.out: np.array(given(p, draws, network.sizes(N), values)) for p in network.params}


def assert_central_differences(network, seed, *, rtol=2e-6):
    draws = Draws(N, 0)
    values = values_of(network, np.random.default_rng(seed))
    found, targets = gradients(network, values, draws)
    weights = first_weights(network, values, draws)
    assert set(found) <= set(weights)
    rng = np.random.default_rng(seed)
    for w, start in weights.items():
        expected = found.get(w, np.zeros_like(start))
        scale = np.max(np.abs(expected)) + 1e-3
        for index in rng.permutation(start.size)[:8]:
            at = np.unravel_index(index, start.shape)
            sides = []
            for h in (2e-4, -2e-4, 1e-4, -1e-4):
                moved = dict(weights)
                moved[w] = start.copy()
                moved[w][at] += h
                sides.append(evaluate(network, moved, draws, values, targets))
            coarse, fine = (sides[0] - sides[1]) / 4e-4, (sides[2] - sides[3]) / 2e-4
            slope = (4 * fine - coarse) / 3
            assert abs(slope - expected[at]) < rtol * scale + 1e-9, f"{w}{at}: {slope} against {expected[at]}"


@pytest.mark.parametrize("name", NETWORKS)
def test_architectures_against_central_differences(name):
    assert_central_differences(NETWORKS[name](), seed=1)


@pytest.mark.parametrize("seed", range(60))
def test_random_networks_against_central_differences(seed):
    assert_central_differences(random_network(np.random.default_rng(seed)), seed)


def test_random_networks_have_every_kind_of_line():
    lines = [x for seed in range(60) for x in random_network(np.random.default_rng(seed)).lines]
    assert {type(x) for x in lines} == {Input, MatMul, Nonlin, Moment}
    assert any(x.transposed for x in lines if isinstance(x, MatMul))
    moments = [x for x in lines if isinstance(x, Moment)]
    assert {len(x.args) for x in moments} == {1, 2, 3} and {x.mean for x in moments} == {True, False}
    assert any(max(p) > 1 for x in lines if isinstance(x, Nonlin) and isinstance(x.fn, Poly) for _, p in x.fn.terms)


@pytest.mark.parametrize("name", NETWORKS)
def test_architectures_against_torch(name):
    torch = pytest.importorskip("torch")
    network = NETWORKS[name]()
    draws = Draws(N, 0)
    values = values_of(network, np.random.default_rng(1))
    found, targets = gradients(network, values, draws)
    sizes = network.sizes(N)
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in first_weights(network, values, draws).items()}
    phi = {
        "tanh": torch.tanh, "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu,
        "rsqrt": lambda x: 1 / torch.sqrt(x + 1e-5),
    }
    env = {}
    for line in network.lines:
        if isinstance(line, Input):
            env[line.out] = weights.get(line.out)
            if env[line.out] is None:
                env[line.out] = torch.tensor(np.array(given(line, draws, sizes, values), dtype=float))
        elif isinstance(line, MatMul):
            env[line.out] = (env[line.matrix].T if line.transposed else env[line.matrix]) @ env[line.vector]
        elif isinstance(line, Moment):
            product = torch.stack([env[a] for a in line.args]).prod(dim=0)
            env[line.out] = product.mean() if line.mean else product.sum()
        elif isinstance(line.fn, Poly):
            env[line.out] = sum(
                c.at(sizes, values) * torch.prod(torch.stack(torch.broadcast_tensors(*(
                    env[a] ** p for a, p in zip(line.args, powers, strict=True)))), dim=0)
                for c, powers in line.fn.terms)
        elif isinstance(line.fn, Softmax):
            x = torch.stack(torch.broadcast_tensors(*(env[a] for a in line.args)))
            env[line.out] = torch.softmax(x, dim=0)[line.fn.index]
        else:
            env[line.out] = phi[line.fn.name.split("(")[0]](env[line.args[0]])
    total = 0
    for out in network.outputs:
        f, y = env[out], torch.tensor(targets[out])
        total = total + {
            "squared": lambda f, y: ((f - y) ** 2).sum() / 2,
            "logistic": lambda f, y: torch.nn.functional.softplus(-y * f).sum(),
            "cross_entropy": lambda f, y: torch.nn.functional.cross_entropy(f, y),
        }[network.loss](f, y)
    total.backward()
    for w, tensor in weights.items():
        np.testing.assert_allclose(found[w], tensor.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=w)


def test_what_does_not_depend_on_a_weight_has_no_gradient_lines():
    p = Program(loss="squared")
    n, d = p.dim("n"), p.dim("d", 3)
    frozen = p.param("F", n, d, trainable=False)
    W = p.param("W", p.dim("d_out", 1), n)
    p.output(p.let("f", W @ tp.tanh(frozen @ p.data("xi", d))))
    t = unroll(p.freeze(), "sgd", steps=1)
    assert [e.var for e in t.find("gradient")] == ["f"]


def test_updates_are_not_differentiated():
    p = Program()
    n = p.dim("n")
    x = p.vector("x", n)
    p.add(Outer("G", loss_record, ((("x", "x"),),)))
    p.add(MatMul("y", "G", "x"))
    q = p.copy()
    value, wanted = {"x": "x", "y": "y"}, frozenset({"G", "y", "x"})
    passed = Backward(Emitter(q), p, value, lambda v: f"d{v}", lambda *a: ["x"], wanted)
    passed.add("G", ONE, (x.name,))
    with pytest.raises(NotCoveredError, match="gradients through an optimizer"):
        passed.run({"y": "x"})
