r"""Training in the kernel regime: a wide network under gradient descent is linear in its parameters.

With the NTK Theta and the loss summed over the N training points, gradient flow is
``df/dt = -Theta(., X) chi(f(X), y)``, chi the loss' gradient by the output. So at any point

    f_t(x) = f_0(x) + Theta(x, X) a_t,      da/dt = -chi(f_0(X) + Theta(X, X) a, y),      a_0 = 0,

one vector a_t for all points. For the squared loss ``a_t = V psi_t(lambda) V^T (y - f_0(X))`` with the eigenvectors V
of Theta(X, X) and ``psi_t(lambda) = (1 - exp(-lambda t)) / lambda``; f_0 is a Gaussian process (the NNGP), so f_t is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tensorprog.atoms.loss import Loss
from tensorprog.errors import NotCoveredError, RunError

Kernel = Callable[[Any, Any], Any]

#: Points of one block when only the diagonal of a covariance is asked for.
_BLOCK = 256
#: Beyond this many times of the fastest direction an explicit method is slow; the unknowns that an implicit one takes.
_STIFF, _LARGE = 2e4, 2000
#: Evaluations of the gradient in one integration; more would not end.
_CALLS = 50_000


class Posterior(NamedTuple):
    """Mean, of shape (M,) or (M, k), and covariance, of shape (M, M), the same for every output."""

    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class Regression:
    r"""A wide network trained on (X, y), by its kernels.

    Args:
        kernel: the NTK, any callable ``K(X1, X2) -> (N1, N2)``, real, symmetric, positive semidefinite.
        X: training points, as the kernel takes them; (N, d) or (N, ...).
        y: targets, (N,) or (N, k); labels of any type, (N,), if ``classify``.
        prior: the NNGP, the law of f_0 over initializations; None: f_0 = 0.
        loss: "squared", "logistic" (targets -1, 1), "cross_entropy" (targets on the simplex), or a ``Loss``; summed
            over the points (for a mean divide times and learning rates by N).
        learning_rate: of discrete steps of gradient descent; None: gradient flow. Times count steps, or are times.
        jitter: added to the diagonal of Theta(X, X), and to nothing else: at t = oo the ridge of ridge regression.
        classify: y are labels; targets are one-hot (less their mean 1/k for the squared loss; -1 and 1 for logistic).
        tol: relative error of integrated losses; two integrations must agree on it.

    Raises:
        RunError: shapes that do not fit, numbers that are not finite.
        NotCoveredError: a kernel that is not symmetric positive semidefinite, a learning rate that diverges, an
            integration that does not reach ``tol``.

    Example:
        >>> kernel = lambda A, B: np.exp(-np.subtract.outer(A[:, 0], B[:, 0]) ** 2 / 2)
        >>> X, y = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 0.0])
        >>> net = Regression(kernel, X, y, prior=kernel)
        >>> np.allclose(net.predict(X), y), net.predict(np.array([[0.5]]), t=1.0).round(3).tolist()
        (True, [0.414])
        >>> net.std(X, t=0).tolist(), net.std(X).round(6).tolist()
        ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])

    Source: jacot2018neural (training); lee2019wide (mean and covariance of f_t); lee2018deep (``posterior``).
    """

    kernel: Kernel
    X: Any = None
    y: Any = None
    _: KW_ONLY
    prior: Kernel | None = None
    loss: str | Loss = "squared"
    learning_rate: float | None = None
    jitter: float = 0.0
    classify: bool = False
    tol: float = 1e-8

    def __post_init__(self):
        for name, x in (("kernel", self.kernel), ("prior", self.prior)):
            if not callable(x) and (x is not None or name == "kernel"):
                raise RunError(name, x, "not a function of arrays", "kernels.ntk(network), or nngp for the prior")
        for name, x in (("learning_rate", self.learning_rate), ("jitter", self.jitter), ("tol", self.tol)):
            if not _is_number(x) and (x is not None or name != "learning_rate"):
                raise RunError(name, x, "not a number", f"{name}=0.1")

    def fit(self, X, y) -> Regression:
        """Return the same network trained on other data.

        >>> Regression(lambda A, B: A @ B.T).fit(np.eye(2), np.array([1.0, 2.0])).predict(np.ones((1, 2))).tolist()
        [3.0]
        """
        return replace(self, X=X, y=y)

    # --------------------------------------------------------------------------------------------- what f_t is

    def predict(self, X=None, t: float | Sequence[float] = math.inf) -> np.ndarray:
        """Return the mean of f_t over initializations at the points X (None: the training points), shaped like y.

        Args:
            X: points, as the kernel takes them; (M, ...).
            t: a time (or number of steps), or several: then a first axis counts them.

        Returns:
            (M,) or (M, k), one more axis in front if t is a sequence.

        Raises:
            NotCoveredError: another loss than the squared one from a random f_0 (its mean obeys no equation of its own:
                average ``sample``), or up to t = oo.

        >>> net = Regression(lambda A, B: A @ B.T, np.eye(1), np.ones(1), learning_rate=0.5)
        >>> net.predict(t=[0, 1, 2]).ravel().tolist()
        [0.0, 0.5, 0.75]
        """
        if self._loss.name != "squared" and self.prior is not None:
            raise NotCoveredError("predict", self._loss.name, "the mean over random f_0 obeys no equation of its own",
                                  "sample(X, t, count).mean(0), or prior=None for f_0 = 0")
        start = np.zeros((1, *self._targets.shape))
        moved = self._moves(start, _times(t))[:, 0]
        return self._shaped(self._cross(self.kernel, X, self.X, self._gram) @ moved, t)

    def covariance(self, X=None, t: float = math.inf) -> np.ndarray:
        """Return the covariance of f_t over initializations, (M, M), the same for every output; squared loss only.

        ``K - A K(X, .) - K(., X) A^T + A K(X, X) A^T`` with ``A = Theta(., X) psi_t(Theta(X, X))`` and the prior K.
        """
        A, mixed = self._influence(X, t)
        out = self._own(X) - A @ mixed.T - mixed @ A.T + A @ self._prior_gram @ A.T
        return (out + out.T) / 2

    def std(self, X=None, t: float = math.inf) -> np.ndarray:
        """Return the standard deviation of f_t at each point, (M,): roots of the diagonal of ``covariance``."""
        A, mixed = self._influence(X, t)
        variance = self._own(X, diagonal=True) + np.sum((A @ self._prior_gram - 2 * mixed) * A, axis=1)
        return np.sqrt(np.maximum(variance, 0))

    def sample(self, X=None, t: float = math.inf, count: int = 100, *, seed: int = 0) -> np.ndarray:
        """Return f_t from ``count`` random initializations, (count, M) or (count, M, k): any loss.

        >>> kernel = lambda A, B: A @ B.T
        >>> net = Regression(kernel, np.eye(2), np.array([1.0, -1.0]), prior=kernel, loss="logistic")
        >>> net.sample(np.ones((1, 2)), t=2.0, count=3).shape
        (3, 1)
        """
        if self.prior is None:
            raise NotCoveredError("sample", None, "f_0 = 0 is not random", "prior=..., the NNGP kernel of the network")
        mixed, own, n = self._cross(self.prior, X, self.X, self._prior_gram), self._own(X), len(self._targets)
        joint = np.block([[self._prior_gram, mixed.T], [mixed, own]])
        values, vectors = _spectrum(joint, "prior", self._eps(joint), 0.0)
        for name, x, least in (("count", count, 1), ("seed", seed, 0)):
            if not isinstance(x, int) or x < least:
                raise RunError(name, x, f"not a whole number of at least {least}", f"{name}={least}")
        noise = np.random.default_rng(seed).standard_normal((count, len(values), self._targets.shape[1]))
        start = (vectors * np.sqrt(values)) @ noise
        moved = self._moves(start[:, :n], _times(t))[0]
        return self._squeezed(start[:, n:] + self._cross(self.kernel, X, self.X, self._gram) @ moved)

    def posterior(self, X=None, noise: float = 0.0) -> Posterior:
        """Return the Bayesian posterior of the Gaussian process with the prior's kernel (``kernel`` if there is none).

        Args:
            noise: variance of the observations, >= 0. Of noise 0 it is f_oo if only the last layer is trained.

        Raises:
            NotCoveredError: the kernel is singular on the training points, and there is no noise.

        >>> post = Regression(lambda A, B: A @ B.T, np.eye(1), np.ones(1)).posterior(np.ones((1, 1)), noise=1.0)
        >>> post.mean.round(12).tolist(), post.covariance.round(12).tolist()
        ([0.5], [[0.5]])

        Source: lee2018deep.
        """
        mixed, weights, vectors, _ = self._observed(X, noise)
        half = (mixed @ vectors) * np.sqrt(weights)
        mean = half @ ((vectors.T @ self._targets) * np.sqrt(weights)[:, None])
        return Posterior(self._squeezed(mean), self._own(X, prior=self.prior or self.kernel) - half @ half.T)

    def log_evidence(self, noise: float = 0.0) -> float:
        """Return the logarithm of the density of y under the prior with this noise, summed over outputs.

        >>> net = Regression(lambda A, B: A @ B.T, np.eye(1), np.ones(1))
        >>> round(net.log_evidence(1.0), 9) == round(-0.25 - math.log(2 * math.pi * 2) / 2, 9)
        True
        """
        _, weights, vectors, y = self._observed(None, noise)
        fitted = float(np.sum((vectors.T @ y) ** 2 * weights[:, None]))
        return -(fitted + y.shape[1] * float(np.sum(np.log(2 * math.pi / weights)))) / 2

    # ------------------------------------------------------------------------------------------- conveniences

    def labels(self, X=None, t: float = math.inf) -> np.ndarray:
        """Return the most probable label of each point, (M,), of ``classify``.

        >>> net = Regression(lambda A, B: A @ B.T, np.eye(2), np.array(["cat", "dog"]), classify=True)
        >>> net.labels(np.array([[1.0, 0.2], [0.1, 3.0]])).tolist()
        ['cat', 'dog']
        """
        if not self.classify:
            raise RunError("labels", self.classify, "this is a regression",
                           "Regression(kernel, X, labels, classify=True)")
        return self._classes[0][np.argmax(self.predict(X, t), axis=1)]

    def score(self, X, y, t: float = math.inf) -> float:
        """Return the part of the labels that are right, or, of a regression, R^2: 1 - residual over variance of y.

        >>> net = Regression(lambda A, B: A @ B.T, np.eye(2), np.array([1.0, 3.0]))
        >>> net.score(np.array([[1.0, 1.0], [2.0, 0.0]]), np.array([4.0, 2.0]))
        1.0
        """
        made = self.labels(X, t) if self.classify else self.predict(X, t)
        y = np.asarray(y) if self.classify else np.asarray(y, float)
        if y.shape != made.shape:
            raise RunError("score", y.shape, "y has not the shape of what is predicted",
                           f"an array of shape {made.shape}")
        if self.classify:
            return float(np.mean(made == y))
        off = float(np.sum((y - made) ** 2))
        spread = float(np.sum((y - y.mean(axis=0)) ** 2))
        return 1 - off / spread if spread else float(off == 0)

    @property
    def spectrum(self) -> np.ndarray:
        """The eigenvalues of Theta(X, X), jitter included, increasing; direction i is learned at rate lambda_i."""
        return self._eigen[0]

    # ------------------------------------------------------------------------------------------------ dynamics

    def _moves(self, start: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return a_t, (T, S, N, k), from f_0 at the training points, (S, N, k)."""
        self._check(times)
        if self._loss.name == "squared":
            values, vectors = self._eigen
            gap = vectors.T @ (self._targets - start)
            return np.array([vectors @ (self._psi(values, t)[:, None] * gap) for t in times])
        if np.isinf(times).any():
            raise NotCoveredError(f"t = oo, {self._loss.name}", math.inf, "this loss has no minimum on data that the "
                                  "kernel fits: outputs grow without bound", "a finite t")
        return self._steps(start, times) if self.learning_rate is not None else self._flow(start, times)

    def _psi(self, values: np.ndarray, t: float) -> np.ndarray:
        # (1 - what is left of a direction at time t) / lambda; its limit where lambda is 0
        rate, safe = self.learning_rate, np.where(values > 0, values, 1.0)
        if math.isinf(t):
            cut = len(values) * np.finfo(float).eps * values[-1]
            return np.where(values > cut, 1 / safe, 0.0)
        if rate is None:
            return np.where(values > 0, -np.expm1(-safe * t) / safe, t)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            small = -np.expm1(t * np.log1p(-np.minimum(rate * safe, 1.0)))
            gone = np.where(rate * safe < 0.5, small, 1 - (1 - rate * safe) ** int(t))
        return np.where(values > 0, gone / safe, rate * t)

    def _steps(self, start, times) -> np.ndarray:
        assert self.learning_rate is not None
        a, out, order = np.zeros_like(start), {}, sorted({int(t) for t in times})
        for step in range(order[-1] + 1):
            if step in order:
                out[step] = a
            a = a - self.learning_rate * self._pull(start, a)
        return np.array([out[int(t)] for t in times])

    def _flow(self, start, times) -> np.ndarray:
        from scipy.integrate import solve_ivp

        order, back = np.unique(times, return_inverse=True)
        stiff = self.spectrum[-1] * order[-1] > _STIFF and start.size <= _LARGE

        def run(tol: float) -> np.ndarray:
            calls = iter(range(_CALLS))

            def slope(t: float, a: np.ndarray) -> np.ndarray:
                if next(calls, None) is None:
                    raise NotCoveredError(f"t = {order[-1]:g}", t, f"it is here only after {_CALLS} evaluations",
                                          "a shorter time, a larger tol, or discrete steps (learning_rate=...)")
                return -self._pull(start, a.reshape(start.shape)).ravel()

            solved = solve_ivp(slope, (0.0, float(order[-1])), np.zeros(start.size), t_eval=order,
                               method="LSODA" if stiff else "DOP853", rtol=max(tol, 3e-14), atol=1e-3 * tol)
            if not solved.success:
                raise NotCoveredError(f"t = {order[-1]}", float(tol), f"the integration stops: {solved.message}",
                                      "a shorter time, or a larger tol")
            return solved.y.T.reshape(len(order), *start.shape)

        if order[-1] == 0:
            return np.zeros((len(times), *start.shape))
        coarse, fine = run(self.tol), run(self.tol / 100)
        error, size = np.abs(self._gram @ (coarse - fine)).max(), np.abs(self._gram @ fine).max()
        if error > 100 * self.tol * max(size, 1e-300):
            raise NotCoveredError(f"t = {order[-1]}", float(error / size), "two integrations differ by more than "
                                  f"100 tol = {100 * self.tol:g}", "a smaller tol, or a loss of smooth gradient")
        return fine[back]

    def _pull(self, start, a) -> np.ndarray:
        return self._loss.gradient.fn(start + self._gram @ a + self.jitter * a,
                                      np.broadcast_to(self._targets, start.shape))

    def _check(self, times: np.ndarray) -> None:
        if np.any(times < 0) or np.any(np.isnan(times)):
            raise RunError(f"t = {times.min():g}", float(times.min()), "times are negative, or not numbers", "t >= 0")
        if self.learning_rate is None:
            return
        if not self.learning_rate > 0:
            raise RunError(f"learning_rate = {self.learning_rate}", self.learning_rate, "it is not positive",
                           "a positive number, or None for gradient flow")
        whole = times[np.isfinite(times)]
        if np.any(whole != np.floor(whole)):
            raise RunError(f"t = {times.tolist()}", times.tolist(), "steps are counted in whole numbers",
                           "learning_rate=None for continuous time")
        top = float(self.spectrum[-1])
        if np.isinf(times).any() and self.learning_rate * top >= 2:
            raise NotCoveredError(f"learning_rate = {self.learning_rate:g}, t = oo", self.learning_rate * top,
                                  "gradient descent diverges: learning_rate times the largest eigenvalue reaches 2",
                                  f"a learning_rate below {2 / top:g}")

    # -------------------------------------------------------------------------------------------------- kernels

    @cached_property
    def _loss(self) -> Loss:
        from tensorprog.atoms.losses import loss

        return loss(self.loss) if isinstance(self.loss, str) else self.loss

    @cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        return np.unique(np.asarray(self.y), return_inverse=True)

    @cached_property
    def _targets(self) -> np.ndarray:
        if self.X is None or self.y is None:
            raise RunError("Regression(kernel)", None, "there are no data yet", "call fit(X, y), or give X and y")
        if self.classify:
            y = np.eye(len(self._classes[0]))[self._classes[1]]
            if self._loss.name != "cross_entropy":
                y = 2 * y - 1 if self._loss.name == "logistic" else y - 1 / y.shape[1]
        else:
            try:
                y = np.asarray(self.y, float)
            except (TypeError, ValueError):
                raise RunError("y", self.y, "targets are not numbers", "classify=True, if they are labels") from None
        if y.ndim not in (1, 2) or len(y) != len(self.X) or not len(y) or not np.all(np.isfinite(y)):
            raise RunError("Regression(kernel, X, y)", (len(self.X), y.shape), "y is one finite target for each point "
                           "of X", "arrays of shapes (N, ...) and (N,) or (N, k), N >= 1")
        return y.reshape(len(y), -1)

    def _call(self, kernel: Kernel, A, B) -> np.ndarray:
        out = np.asarray(kernel(A, B))
        if out.shape != (len(A), len(B)) or out.dtype.kind not in "fiu" or not np.all(np.isfinite(out)):
            raise RunError("kernel(X1, X2)", f"{out.dtype} of shape {out.shape}", f"it is not a matrix of {len(A)} x "
                           f"{len(B)} finite real numbers", "return K[i, j] = k(X1[i], X2[j])")
        return out

    def _cross(self, kernel: Kernel, A, B, known: np.ndarray) -> np.ndarray:
        return known if A is None else self._call(kernel, A, B).astype(float)

    @cached_property
    def _raw(self) -> np.ndarray:
        assert self._targets is not None
        return self._call(self.kernel, self.X, self.X)

    @property
    def _gram(self) -> np.ndarray:
        return self._raw.astype(float, copy=False)

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        if self.jitter < 0:
            raise RunError(f"jitter = {self.jitter}", self.jitter, "jitter is negative", "jitter=0")
        return _spectrum(self._gram, "kernel", self._eps(self._raw), self.jitter)

    @staticmethod
    def _eps(raw: np.ndarray) -> float:
        return float(np.finfo(raw.dtype if raw.dtype.kind == "f" else float).eps)

    @cached_property
    def _prior_gram(self) -> np.ndarray:
        n = len(self._targets)
        return np.zeros((n, n)) if self.prior is None else self._call(self.prior, self.X, self.X).astype(float)

    def _own(self, X, *, diagonal: bool = False, prior: Kernel | None = None) -> np.ndarray:
        points, kernel = self.X if X is None else X, prior or self.prior
        if not diagonal:
            return np.zeros((len(points),) * 2) if kernel is None else self._call(kernel, points, points).astype(float)
        if kernel is None:
            return np.zeros(len(points))
        blocks = (points[i:i + _BLOCK] for i in range(0, len(points), _BLOCK))
        return np.concatenate([np.diagonal(self._call(kernel, b, b)).astype(float) for b in blocks])

    def _influence(self, X, t: float) -> tuple[np.ndarray, np.ndarray]:
        if self._loss.name != "squared":
            raise NotCoveredError("covariance", self._loss.name, "f_t is Gaussian for the squared loss only",
                                  "sample(X, t, count)")
        self._check(_times(t))
        values, vectors = self._eigen
        A = (self._cross(self.kernel, X, self.X, self._gram) @ vectors * self._psi(values, float(t))) @ vectors.T
        return A, np.zeros(A.shape) if self.prior is None else self._cross(self.prior, X, self.X, self._prior_gram)

    def _observed(self, X, noise: float):
        if not _is_number(noise) or noise < 0:
            raise RunError(f"noise = {noise}", noise, "not a variance", "noise=0")
        kernel, y = self.prior or self.kernel, self._targets
        raw = self._call(kernel, self.X, self.X)
        values, vectors = _spectrum(raw.astype(float), "prior" if self.prior else "kernel", self._eps(raw), noise)
        least = len(values) * self._eps(raw) * values[-1]
        if values[0] <= least:
            raise NotCoveredError("posterior", float(values[0]), "the kernel is singular on the training points",
                                  f"noise={max(10 * least, 1e-12):.0e} or more, or leave out points that repeat")
        return self._cross(kernel, X, self.X, raw.astype(float)), 1 / values, vectors, y

    def _squeezed(self, out: np.ndarray) -> np.ndarray:
        return out[..., 0] if not self.classify and np.ndim(self.y) == 1 else out

    def _shaped(self, out: np.ndarray, t) -> np.ndarray:
        out = self._squeezed(out)
        return out[0] if np.ndim(t) == 0 else out


def _times(t) -> np.ndarray:
    try:
        times = np.atleast_1d(np.asarray(t, float))
    except (TypeError, ValueError):
        times = np.empty(0)
    if times.ndim > 1 or not times.size:
        raise RunError("t", t, "neither a time nor several", "t=1.0, or t=[0.5, 1.0]")
    return times


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.floating, np.integer)) and not isinstance(x, bool)


def _spectrum(gram: np.ndarray, name: str, eps: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (clipped at 0) and eigenvectors of ``gram + shift``; refuses what no kernel can be."""
    size, n = np.abs(gram).max(), len(gram)
    skew = float(np.abs(gram - gram.T).max())
    if skew > 100 * eps * n * size:
        raise NotCoveredError(f"{name}(X, X)", skew, "it is not symmetric: entries differ from their mirror images",
                              "a kernel with k(x, x') = k(x', x)")
    values, vectors = np.linalg.eigh((gram + gram.T) / 2 + shift * np.eye(n))
    slack = 10 * n * eps * max(float(values[-1]), 0.0)
    if values[0] < -slack:
        raise NotCoveredError(f"{name}(X, X)", float(values[0]), "it is not positive semidefinite: this eigenvalue is "
                              "negative beyond rounding", f"jitter (or noise) of {1.1 * (shift - values[0]):.2g}, or "
                              "float64 if the kernel is computed in float32")
    return np.maximum(values, 0.0), vectors
