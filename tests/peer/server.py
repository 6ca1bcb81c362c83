"""What the peer's interpreter runs: kernels of networks that are written as data, for arrays in files.

A network is a list of layers. A layer is ``[name, options]``, a function of ``neural_tangents.stax`` and what it is
called with, or ``["parallel", [network, network, ...]]``.
"""

import json
import sys
import warnings


def layer(name, given):
    """Return the peer's layer."""
    import jax
    from neural_tangents import stax

    if name == "parallel":
        return stax.parallel(*map(serial, given))
    if name == "ElementwiseNumerical":  # its function is a name
        given = given | {"fn": getattr(jax.nn, given["fn"])}
    return getattr(stax, name)(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def serial(network):
    """Return the peer's network."""
    from neural_tangents import stax

    return stax.serial(*(layer(*x) for x in network))


def trained(kernel, given):
    """Return mean and covariance of outputs at Y at several times (those of a mean loss), and of the posterior."""
    from neural_tangents import predict

    f = predict.gradient_descent_mse_ensemble(kernel, given["X"], given["targets"])
    made = f(t=given["times"], x_test=given["Y"], get="ntk", compute_cov=True)
    ends = {kind: f(t=None, x_test=given["Y"], get=kind, compute_cov=True) for kind in ("nngp", "ntk")}
    found = {"mean": made.mean, "covariance": made.covariance}
    return found | {f"{k} {what}": getattr(x, what) for k, x in ends.items() for what in ("mean", "covariance")}


def answer(ask):
    """Write the kernels K(X, X) and K(X, Y) of the arrays in a file into another; with targets training too."""
    import jax
    import numpy as np

    given = np.load(ask["inputs"])
    kernel = serial(ask["network"])[2]
    found = trained(kernel, given) if "targets" in given else {}
    for kind in ("nngp", "ntk"):
        compiled = jax.jit(lambda X, Y=None, kind=kind: kernel(X, Y, kind))
        found[f"{kind} XX"], found[f"{kind} XY"] = compiled(given["X"]), compiled(given["X"], given["Y"])
    np.savez(ask["out"], **{k: np.asarray(v) for k, v in found.items()})


def main():
    import jax
    import neural_tangents

    warnings.simplefilter("ignore")  # the peer's: of layers it has no finite network for
    jax.config.update("jax_enable_x64", True)
    answers = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps(neural_tangents.__version__), file=answers, flush=True)
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:  # told to whoever asked
            found = f"{type(error).__name__}: {error}"
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
