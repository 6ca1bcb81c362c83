"""Random programs: closed forms and quadrature, sampled populations, and runs at finite width say the same.

Programs, widths and seeds are fixed. What is refuted is asked again with other seeds, and refuted only if it is then
refuted once more: with 99.9% at each time, hundreds of honest programs come through.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from scipy import stats

from tensorprog.errors import NotCoveredError
from tensorprog.finite.converge import judge_values
from tensorprog.finite.fit import Verdict
from tensorprog.finite.limit import limit
from tensorprog.finite.numpy_backend import run
from tensorprog.program.instructions import Input, MatMul, MatrixType, Moment, Nonlin, ScalarType
from tensorprog.program.poly import Poly
from tensorprog.program.text import to_text
from tensorprog.testing import limit_programs, random_limit_program

PROGRAMS, BATCH, TWENTY = 320, 20, range(64, 80)
SEEDS = {1 << k: seeds for k, seeds in ((9, 48), (11, 48), (13, 32), (15, 24), (17, 16))}
FEW = {1 << k: 24 for k in (6, 8, 10, 12, 13)}
#: A sampled error is half a 95% interval of Student's t with 7 degrees of freedom: four of them are p < 1e-4.
APART = 4.0
DOUBT = 1e-3


@cache
def program(k):
    return random_limit_program(np.random.default_rng(k), steps=4 + k % 9)


@dataclass
class Answer:
    """What is said of one output: ``refusal`` instead of a limit; verdicts by who was asked."""

    name: str
    limit: object = None
    refusal: NotCoveredError | None = None
    sampled: Verdict | None = None
    value: Verdict | None = None
    rate: Verdict | None = None

    @property
    def refuted(self):
        return Verdict.REFUTED in (self.sampled, self.value, self.rate)


def answers(p, seeds, ask=None, **kwargs):
    """Return what the engine says of every output of a program, judged by populations and runs."""
    ask = ask or twice
    width, found = Widths(p), []
    for name in p.outputs:
        try:
            claim = limit(p, name, budget=10, **kwargs)
        except NotCoveredError as error:
            found.append(Answer(name, refusal=error))
            continue
        a = Answer(name, claim)
        a.sampled = ask(lambda base, a=a: against_population(p, a, base))
        a.value, a.rate = (ask(lambda base, a=a, i=i: against_runs(width, a, seeds, base)[i]) for i in (0, 1))
        found.append(a)
    return found


def twice(ask):
    """Return a verdict; one of refuted has to be repeated with other seeds."""
    first = ask(0)
    return ask(1) if first is Verdict.REFUTED else first


class Widths:
    """Runs of a program, each made once."""

    def __init__(self, p):
        self.program, self.known = p, {}

    def samples(self, name, seeds, base):
        """Return n -> values of an output by other seeds for every base."""
        for n, count in seeds.items():
            for s in range(count * base, count * (base + 1)):
                if (n, s) not in self.known:
                    self.known[n, s] = run(self.program, n, s, method="matrix-free").kept
        return {n: np.array([self.known[n, s][name] for s in range(count * base, count * (base + 1))])
                for n, count in seeds.items()}


def against_population(p, a, base):
    """Compare a limit with the sampled one; a number that stays random has none."""
    if a.limit.kind == "gaussian" or a.limit.method == "sampled":
        return None
    s = limit(p, a.name, method="sampled", seed=base, tol=1e-3, budget=3)
    apart = abs(s.value - a.limit.value) > APART * s.error + a.limit.error + 1e-9 * max(1, abs(s.value))
    return Verdict.REFUTED if apart else Verdict.CONFIRMED


def against_runs(width, a, seeds, base):
    """Return the verdicts on value and rate; of a Gaussian number those on its mean and variance."""
    found = width.samples(a.name, seeds, base)
    if a.limit.kind == "gaussian":
        scaled = [x / n ** float(a.limit.exponent) for n, x in found.items()]
        return gaussian(np.concatenate(scaled[-3:]), a.limit)
    told = judge_values(found, a.limit.value, a.limit.error)
    return told["value"], told["rate"]


def gaussian(x, claim):
    """Compare numbers, powers of n taken out, with the Gaussian they should be: its mean and its variance."""
    mean = claim.value if claim.exponent == 0 else claim.leading.xreplace(dict.fromkeys(claim.leading.free_symbols, 0))
    centre = 2 * stats.norm.sf(abs(x.mean() - float(mean)) * (len(x) / claim.variance) ** 0.5)
    below = stats.chi2.cdf(len(x) * x.var() / claim.variance, len(x) - 1)
    return tuple(Verdict.REFUTED if p < DOUBT else Verdict.CONFIRMED for p in (centre, 2 * min(below, 1 - below)))


def assert_honest(p, found):
    """Assert that nothing is refuted, and that every refusal says where, what, why, and what to do."""
    for a in found:
        assert not a.refuted, f"{a.name}: {a}\n{to_text(p)}"
        if a.refusal is not None:
            assert a.refusal.line and a.refusal.reason and a.refusal.fix and a.refusal.value is not None, a.refusal


def kinds(found):
    """Return how often which method, and which verdict of whom."""
    told = Counter("refused" if a.refusal is not None else a.limit.method for a in found)
    told.update((who, v.name) for a in found for who in ("sampled", "value", "rate") if (v := getattr(a, who)))
    return told


def assert_all_agree(ks, seeds):
    """Assert it of programs; most limits are known exactly or by quadrature, and few are refused."""
    told: Counter = Counter()
    for k in ks:
        found = answers(program(k), seeds)
        assert_honest(program(k), found)
        told.update(kinds(found))
    answered = told["exact"] + told["quadrature"] + told["sampled"]
    assert told["sampled"] < answered / 4, told
    assert told["refused"] < answered / 4, told
    assert told["sampled", "CONFIRMED"] > answered / 2, told
    assert told["value", "CONFIRMED"] > told["value", "INCONCLUSIVE"], told


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, PROGRAMS, BATCH))
def test_exact_sampled_and_finite_width_agree(first):
    assert_all_agree(range(first, first + BATCH), SEEDS)


def test_exact_sampled_and_finite_width_agree_for_a_few():
    assert_all_agree(TWENTY, FEW)


@pytest.mark.slow
@settings(max_examples=300, derandomize=True, deadline=None, phases=[Phase.generate],
          suppress_health_check=[HealthCheck.too_slow])
@given(limit_programs())
def test_exact_and_sampled_agree(p):
    for name in p.outputs:
        try:
            a = Answer(name, limit(p, name, budget=10))
        except NotCoveredError as error:
            assert_honest(p, [Answer(name, refusal=error)])
        else:
            a.sampled = twice(lambda base, a=a: against_population(p, a, base))
            assert_honest(p, [a])


def test_the_programs_are_of_every_kind():
    fns, told = set(), Counter()
    for p in map(program, range(PROGRAMS // 2)):
        products = [(x.matrix, x.transposed) for x in p.lines if isinstance(x, MatMul)]
        told["turned"] += any((w, not t) in products for w, t in products)
        told["again"] += len(products) > len(set(products))
        told["rectangular"] += any(x.type.rows != x.type.cols for x in p.lines
                                   if isinstance(x, Input) and isinstance(x.type, MatrixType))
        told["degenerate"] += "[[1, 1], [1, 1]]" in to_text(p) or "[[1, -1], [-1, 1]]" in to_text(p)
        told["sums"] += any(isinstance(x, Moment) and not x.mean for x in p.lines)
        told["powers"] += any(isinstance(x, Nonlin) and isinstance(x.fn, Poly) and len(x.fn.terms) > 1
                              and any(c.powers for c, _ in x.fn.terms) for x in p.lines)
        told["conditioned"] += any(isinstance(x, Nonlin) and len({type(p.type_of(a)) for a in x.args}) == 2
                                   for x in p.lines)
        told["of scalars"] += any(isinstance(x, Nonlin) and not isinstance(x.fn, Poly)
                                  and isinstance(p.type_of(x.out), ScalarType) for x in p.lines)
        fns |= {x.fn.name for x in p.lines if isinstance(x, Nonlin) and not isinstance(x.fn, Poly)}
    assert fns >= {"tanh", "erf", "sin", "cos", "gaussian", "sigmoid", "hard_tanh", "sign", "step", "quantizer(3)",
                   "d_tanh", "d_erf", "relu", "abs", "leaky_relu(1/5)", "gelu", "softplus", "silu", "gelu_tanh", "sqrt",
                   "log", "reciprocal", "power(1/3)", "square", "cube", "hermite(2)", "hermite(3)", "monomial(2)",
                   "exp", "softmax_0", "softmax_1"}
    assert min(told.values()) >= 10 and len(told) == 8, told


# --------------------------------------------------------------------------------- wrong limits are found out


def no_dots(monkeypatch):
    monkeypatch.setattr("tensorprog.interp.limit._dots", lambda *_: [])
    return {}


def independent_hats(monkeypatch):
    from tensorprog.interp.limit import gaussian as drawn

    monkeypatch.setattr("tensorprog.interp.limit.gaussian", lambda space, label, v, family: drawn(space, label, v, []))
    return {}


WRONG = {
    "no dots": (no_dots, (23, 25)),
    "independent hats": (independent_hats, (77, 87)),
    "no ratios": (lambda _: {"ratios": {"m": 1, "l": 1}}, (44, 104)),
}


def values(k, **kwargs):
    """Return the limits of a program's outputs that are numbers and known without samples."""
    found = {}
    for name in program(k).outputs:
        try:
            claim = limit(program(k), name, method="exact", budget=10, **kwargs)
        except NotCoveredError:
            continue
        if claim.kind == "scalar":
            found[name] = claim.value
    return found


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_limits_are_refuted(wrong, monkeypatch):
    plant, ks = WRONG[wrong]
    right = {k: values(k) for k in ks}
    kwargs, told = plant(monkeypatch), Counter()
    for k in ks:
        here = {what: {d: r for d, r in ratios.items() if d in program(k).dims} for what, ratios in kwargs.items()}
        for a in answers(program(k), FEW, lambda verdict: verdict(0), **here):
            if a.name in right[k] and not np.isclose(a.limit.value, right[k][a.name], rtol=0.1, atol=0.05):
                told["wrong"] += 1
                told["sampled", a.sampled] += 1
                told["value", a.value] += 1
    assert told["wrong"] >= 5, told
    assert told["sampled", Verdict.REFUTED] == told["wrong"], told
    assert told["value", Verdict.REFUTED] > 0.7 * told["wrong"] and not told["value", Verdict.CONFIRMED], told
