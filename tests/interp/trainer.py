"""A trainer that shares nothing with the package: dense matrices, forward passes by hand, gradients by complex steps.

For an analytic loss the derivative by an entry w is Im L(w + ih)/h, exact to rounding for h = 1e-30.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

STEP = 1e-30
BETA1, BETA2, BETA = 0.9, 0.999, 0.9


def tanh(x):
    return np.tanh(x)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def relu(x):
    return np.where(np.real(x) > 0, x, 0 * x)


def softmax(x):
    e = np.exp(x - np.max(np.real(x)))
    return e / np.sum(e)


def layernorm(x, gain, bias, eps=1e-5):
    c = x - np.mean(x)
    return gain[:, 0] * c / np.sqrt(np.mean(c * c) + eps) + bias[:, 0]


def squared(f, y):
    return np.sum((f - y) ** 2) / 2


def cross_entropy(f, y):
    top = np.max(np.real(f))
    return top + np.log(np.sum(np.exp(f - top))) - np.sum(y * f)


def mlp(W, x, *, depth, bias, phi=tanh):
    """Return the output of a multilayer perceptron."""
    for layer in range(1, depth + 1):
        h = W[f"W{layer}"] @ x
        if bias:
            h = h + W[f"W{layer}_b"][:, 0]
        x = phi(h)
    return {"f": W["V"] @ x}


def resnet(W, x, *, depth, block, norm, phi):
    """Return the output of a residual network."""
    x = W["W0"] @ x
    for k in range(1, depth + 1):
        y = layernorm(x, W[f"N{k}_g"], W[f"N{k}_b"]) if norm else x
        x = x + (W[f"W{k}"] @ phi(y) if block == 1 else W[f"U{k}"] @ phi(W[f"W{k}"] @ y))
    return {"f": W["V"] @ (layernorm(x, W["N_g"], W["N_b"]) if norm else x)}


def transformer(W, tokens, places, *, depth, parts, grown, scale, phi=gelu):
    """Return the outputs of a pre-norm decoder; ``grown``: a head has ``parts`` coordinates rather than n/parts."""
    xs = [W["E"][:, w] + W["P"][:, p] for w, p in zip(tokens, places, strict=True)]
    for k in range(1, depth + 1):
        b = f"b{k}_"
        ys = [layernorm(x, W[b + "n1_g"], W[b + "n1_b"]) for x in xs]
        heads = [{kind: [W[f"{b}{kind}{i + 1}"] @ y for y in ys] for kind in "qkv"} for i in range(parts)]
        mixed = []
        for t in range(len(xs)):
            out = 0
            for i, head in enumerate(heads):
                if grown:  # coordinate j of every part belongs to head j: a logit for each of them
                    logits = scale * sum(np.array([h["q"][t] * h["k"][s] for s in range(t + 1)]) for h in heads)
                    weights = np.stack([softmax(logits[:, j]) for j in range(logits.shape[1])], axis=1)
                else:
                    weights = softmax(scale * np.array([np.sum(head["q"][t] * head["k"][s]) for s in range(t + 1)]))
                o = sum(weights[s] * head["v"][s] for s in range(t + 1))
                out = out + W[f"{b}o{i + 1}"] @ o
            mixed.append(out)
        xs = [x + a for x, a in zip(xs, mixed, strict=True)]
        xs = [x + W[b + "down"] @ phi(W[b + "up"] @ layernorm(x, W[b + "n2_g"], W[b + "n2_b"])) for x in xs]
    return {f"f_t{t + 1}": W["V"] @ layernorm(x, W["nf_g"], W["nf_b"]) for t, x in enumerate(xs)}


def complex_step(loss, W):
    """Return the gradient of ``loss(W)`` by every entry of every matrix."""
    out = {}
    for name, w in W.items():
        g = np.zeros_like(w)
        for index in np.ndindex(*w.shape):
            moved = dict(W)
            moved[name] = w.astype(complex)
            moved[name][index] += 1j * STEP
            g[index] = np.imag(loss(moved)) / STEP
        out[name] = g
    return out


def directions(optimizer, history, eps):
    """Return the direction of the newest step, from the gradients of all steps, as the papers write it."""
    if optimizer == "sgd":
        return history[-1]
    if optimizer == "signsgd":
        return np.sign(history[-1])
    if optimizer == "momentum":
        u = 0.0
        for g in history:
            u = BETA * u + g
        return u
    m = v = 0.0
    for g in history:
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
    t = len(history)
    m, v = m / (1 - BETA1**t), v / (1 - BETA2**t)
    d = np.sqrt(v) + eps
    return np.where(d == 0, 0.0, m / np.where(d == 0, 1.0, d))


def train(outputs, losses, start, abc, *, n, optimizer, lr, steps, decay=0.0, eps=0.0, frozen=()):
    """Train ``W = n^-a w`` and return the outputs of every sample at steps 0 to ``steps``.

    Args:
        outputs: for each sample, a function of the weights W -> {name: output}.
        losses: for each sample, a function of such a dict -> number.
        start: name -> the first W (multiplier included).
        abc: name -> (a, b, c, wd, e): multiplier, initialization, learning rate, decay and epsilon exponents.
    """
    w = {k: W * float(n) ** abc[k][0] for k, W in start.items()}
    past = {k: [] for k in w}
    seen = []

    def effective(w):
        return {k: v * float(n) ** -abc[k][0] for k, v in w.items()}

    def loss(w):
        W = effective(w)
        return sum(L(f(W)) for f, L in zip(outputs, losses, strict=True)) / len(outputs)

    for t in range(steps + 1):
        seen.append([f(effective(w)) for f in outputs])
        if t == steps:
            return seen
        gradients = complex_step(loss, w)
        for k in w:
            if k in frozen:
                continue
            past[k].append(gradients[k])
            d = directions(optimizer, past[k], eps * float(n) ** -abc[k][4])
            w[k] = (1 - decay * float(n) ** -abc[k][3]) * w[k] - lr * float(n) ** -abc[k][2] * d
    return seen
