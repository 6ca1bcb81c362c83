"""A runner at finite width that reads as the definition, to check what programs mean against plain numpy."""

import numpy as np

from tensorprog.program.instructions import Constant, Data, Input, Joint, MatMul, MatrixType, Moment, Nonlin, VectorType


def run(program, n, rng, values=None):
    """Return every variable's value at width n."""
    sizes, values, env = program.sizes(n), values or {}, {}
    joint = {}

    def shape(kind):
        if isinstance(kind, MatrixType):
            return sizes[kind.rows.name], sizes[kind.cols.name]
        return (sizes[kind.dim.name],) if isinstance(kind, VectorType) else ()

    def drawn(line):
        law, size = line.law, shape(line.type)
        if isinstance(law, Constant):
            return np.full(size, law.value.at(sizes, values))
        if isinstance(law, Data):
            if law.onehot is not None:
                return np.eye(size[0])[law.onehot]
            return rng.normal(size=size) if law.values is None else np.array(list(map(float, law.values))).reshape(size)
        if isinstance(law, Joint):
            if law.group not in joint:
                cov = [[c.at(sizes, values) for c in row] for row in law.covariance]
                means = [m.at(sizes, values) for m in law.means]
                joint[law.group] = rng.multivariate_normal(means, cov, size=size[0], method="eigh")
            return joint[law.group][:, law.index]
        return law.mean.at(sizes, values) + law.variance.at(sizes, values) ** 0.5 * rng.normal(size=size)

    for line in program.lines:
        if isinstance(line, Input):
            env[line.out] = drawn(line)
        elif isinstance(line, MatMul):
            matrix = env[line.matrix].T if line.transposed else env[line.matrix]
            env[line.out] = matrix @ env[line.vector]
        elif isinstance(line, Nonlin):
            value = line.fn.evaluate(sizes, values, *(env[a] for a in line.args))
            env[line.out] = np.broadcast_to(value, shape(program.type_of(line.out)))
        elif isinstance(line, Moment):
            product = np.prod([env[a] for a in line.args], axis=0)
            env[line.out] = product.mean() if line.mean else product.sum()
    return env
