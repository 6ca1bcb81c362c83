"""A market of named programs, and what holds of every program."""

from __future__ import annotations

from tensorprog.program.program import Program
from tensorprog.program.text import parse, to_text

_MARKET = {
    "mlp": """
        dim n
        dim d = 3
        matrix W1 : n x d ~ N(0, 1)
        matrix W2 : n x n
        matrix V : 1 x n
        input xi : d
        h1 = W1 @ xi
        x1 = relu(h1)
        h2 = W2 @ x1
        x2 = relu(h2)
        f = V @ x2
        q = mean(x2 * x2)
        output f, q
    """,
    "mlp_trainable": """
        dim n
        dim d = 3
        param W1 : n x d [role="input"]
        param W2 : n x n [a=0, b=1/2, c=1, role="hidden"]
        param b2 : n x 1 [init=zero, role="bias"]
        param V : 1 x n [role="output"]
        input xi : d = [1, -1/2, 0]
        h2 = W2 @ tanh(W1 @ xi) + b2
        f = V @ tanh(h2)
        output f
        loss squared
    """,
    "resnet": """
        dim n
        matrix U1 : n x n
        matrix V1 : n x n
        matrix U2 : n x n
        matrix V2 : n x n
        vector x0 : n
        x1 = x0 + V1 @ relu(U1 @ x0)
        x2 = x1 + (V2 @ relu(U2 @ x1)) / sqrt(2)
        q = mean(x2 * x0)
        output q
    """,
    "rnn": """
        dim n
        dim vocab = 5
        matrix W : n x n
        matrix U : n x vocab ~ N(0, 1)
        input a : vocab onehot 1
        input b : vocab onehot 4
        input c : vocab onehot 1
        vector v : n
        h1 = tanh(U @ a)
        h2 = tanh(W @ h1 + U @ b)
        h3 = tanh(W @ h2 + U @ c)
        f = sum(v * h3) / n^(1/2)
        output f
    """,
    "attention": """
        dim n
        matrix Q : n x n
        matrix K : n x n
        matrix V : n x n
        vector x1, x2 : n ~ N(0, [[1, 1/2], [1/2, 1]])
        s1 = sum((Q @ x2) * (K @ x1)) / n
        s2 = sum((Q @ x2) * (K @ x2)) / n
        p1 = softmax_0(s1, s2)
        p2 = softmax_1(s1, s2)
        y = p1 * (V @ x1) + p2 * (V @ x2)
        q = mean(y * y)
        output q
    """,
    "layernorm": """
        dim n
        matrix W : n x n
        vector x : n ~ N(1/2, 4)
        h = W @ x
        mu = mean(h)
        sigma = mean((h - mu)^2)^(1/2)
        y = gelu((h - mu) / sigma)
        q = mean(y * x)
        output q
    """,
    "tied": """
        dim n
        matrix W : n x n
        vector x : n
        y = W.T @ relu(W @ x)
        q = mean(x * y)
        output q
    """,
    "gram_chain": """
        dim n
        dim m ~ 2*n
        matrix W : m x n
        vector x : n
        G = W.T @ W
        y = G @ G @ G @ x
        q = mean(x * y)
        tr = mean(trace(G @ G))
        output q, tr
    """,
    "symmetric": """
        dim n
        matrix W : n x n
        vector x : n
        w = (W + W.T)/sqrt(2) @ x
        y = (W + W.T)/sqrt(2) @ w
        q = mean(x * y)
        output q
    """,
    "rectangular": """
        dim n
        dim m ~ 3/2*n
        dim h ~ n^(1/2)
        dim k ~ 2*h
        matrix A : m x n ~ N(0, 4/n)
        matrix B : h x m
        matrix C : k x h
        vector x : n
        y = B @ tanh(A @ x)
        z = A.T @ (B.T @ y)
        t = tanh(C @ y)
        q = mean(z * x)
        r = sum(t * t) / k
        output q, r
    """,
    "moments": """
        dim n
        matrix W : n x n
        vector u, v : n ~ N([0, 1], [[1, 1/3], [1/3, 2]])
        h = W @ u
        a = mean(h * h)
        b = mean(u * v * u)
        c = sum(h * v) / n^(1/2)
        output a, b, c
    """,
    "scalars": """
        dim n
        matrix W : n x n
        vector x : n
        scalar t = 1/3
        s = mean(x * x)
        r = tanh(s - t) + pi*s^2
        y = r * (W @ x) + cos(r) * x - 1
        q = mean(sin(mean(y * x) * y) * y)
        output q
    """,
    "multiplier": """
        dim n
        exponent alpha
        param W : n x n
        vector x : n
        y = n^-alpha * (W @ x)
        output y
    """,
}


def market() -> dict[str, Program]:
    """Return named example programs: networks forward, tied weights, chains, rectangles, moments, nested scalars.

    Example:
        >>> sorted(market())[:4]
        ['attention', 'gram_chain', 'layernorm', 'mlp']
    """
    return {name: parse("\n".join(line.strip() for line in text.splitlines()), name).freeze()
            for name, text in _MARKET.items()}


def assert_round_trip(program: Program) -> None:
    """Assert that the text form of a program is read back as the program itself."""
    text = to_text(program)
    again = parse(text)
    assert again == program, f"read back differently:\n{text}\n{to_text(again)}"
    assert to_text(again) == text
