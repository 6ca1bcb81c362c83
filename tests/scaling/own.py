"""Networks that are not in the package, as text: what the calculus says of them is measured."""

HEAD = "dim n\ndim d = 3\n"

NETWORKS = {
    "gated": """
        param W1 : n x d
        param U : n x n
        param G : n x n
        param V : 1 x n
        input xi : d
        x = tanh(W1 @ xi)
        h = (U @ x) * silu(G @ x)
        f = V @ h
        output f
    """,
    "mixture": """
        param W1 : n x d
        param A : n x n
        param B : n x n
        param g : 1 x n
        param V : 1 x n
        input xi : d
        x = tanh(W1 @ xi)
        s = sum(g @ x)
        p = sigmoid(s)
        h = tanh(p*(A @ x) + (1 - p)*(B @ x))
        f = V @ h
        output f
    """,
    "tied_transpose": """
        param W1 : n x d
        param W : n x n
        param V : 1 x n
        input xi : d
        x = tanh(W1 @ xi)
        h = tanh(W @ x)
        z = tanh(W.T @ h)
        f = V @ z
        output f
    """,
    "tied_readout": """
        param E : n x d
        param W : n x n
        input xi : d
        x = tanh(E @ xi)
        h = tanh(W @ x)
        f = n^-alpha * (E.T @ h)
        output f
    """,
    "rnn": """
        param U : n x d
        param W : n x n
        param V : 1 x n
        input x1 : d
        input x2 : d
        input x3 : d
        h1 = tanh(U @ x1)
        h2 = tanh(W @ h1 + U @ x2)
        h3 = tanh(W @ h2 + U @ x3)
        f = V @ h3
        output f
    """,
    "squared_attention": """
        param W1 : n x d
        param Q : n x n
        param K : n x n
        param O : n x n
        param V : 1 x n
        input a : d
        input b : d
        x = tanh(W1 @ a)
        y = tanh(W1 @ b)
        s = n^-alpha * sum((Q @ x) * (K @ x))
        t = n^-alpha * sum((Q @ x) * (K @ y))
        z = x + s^2 * (O @ x) + t^2 * (O @ y)
        f = V @ tanh(z)
        output f
    """,
    "mean_field_output": """
        param W1 : n x d
        param W2 : n x n
        dim unit = 1
        vector one : unit = 1
        param v : n x unit
        input xi : d
        x = tanh(W1 @ xi)
        h = tanh(W2 @ x)
        f = mean((v @ one) * h)
        output f
    """,
    "highway": """
        param W1 : n x d
        param H : n x n
        param T : n x n
        param V : 1 x n
        input xi : d
        x = tanh(W1 @ xi)
        t = sigmoid(T @ x)
        y = t * tanh(H @ x) + (1 - t) * x
        f = V @ y
        output f
    """,
    "bottleneck": """
        dim k ~ n^(1/2)
        param W1 : n x d
        param D1 : k x n
        param U1 : n x k
        param D2 : k x n
        param U2 : n x k
        param V : 1 x n
        input xi : d
        x0 = W1 @ xi
        x1 = x0 + U1 @ tanh(D1 @ x0)
        x2 = x1 + U2 @ tanh(D2 @ x1)
        f = V @ tanh(x2)
        output f
    """,
    "two_outputs": """
        dim m ~ n
        param W1 : n x d
        param M : m x n
        param V : 1 x n
        param S : 2 x m
        input xi : d
        x = relu(W1 @ xi)
        y = gelu(M @ x)
        f = V @ x
        g = S @ y
        output f, g
    """,
    "zero_readout": """
        param W1 : n x d
        param W2 : n x n
        param V : 1 x n [init=zero]
        input xi : d
        x = tanh(W1 @ xi)
        h = tanh(W2 @ x)
        f = V @ h
        output f
    """,
    "even": """
        param W1 : n x d
        param W2 : n x n
        param W3 : n x n
        param V : 1 x n
        input xi : d
        x = cos(W1 @ xi)
        y = square(W2 @ x)
        z = tanh(W3 @ y)
        f = V @ z
        output f
    """,
    "mixer_norm": """
        param W1 : n x d
        param A : n x n
        param B : n x n
        param V : 1 x n
        input xi : d
        x = W1 @ xi
        y = x * rsqrt(mean(x*x), 1/10)
        z = x + B @ tanh(A @ y)
        c = z - mean(z)
        w = c * rsqrt(mean(c*c), 1/10)
        f = V @ w
        output f
    """,
}


def text(name: str) -> str:
    """Return the text form of one of the networks."""
    body = "\n".join(line.strip() for line in NETWORKS[name].strip().splitlines())
    head = HEAD + ("exponent alpha\n" if "alpha" in body else "")
    return head + body
