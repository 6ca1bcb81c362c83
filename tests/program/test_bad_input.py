"""Malformed texts and ill-typed programs: each error has its line, a caret, the value, the reason and the fix."""

import pickle
import re
import time

import pytest

from tensorprog.errors import ParseError, ProgramError, TensorProgError
from tensorprog.program.text import parse

D = """dim n
dim m ~ 2*n
dim d = 3
matrix W : n x n
matrix B : m x n
vector x : n
vector v : m
scalar t = 1/3
"""

#: text, line number, class, value, how the reason begins, how the fix begins
BAD = [
    (D + 'y = x + z', 9, ProgramError, 'z',
     'z is not defined above this line', 'define it first, or declare it: vector z : n,'),
    (D + 'y = W x', 9, ParseError, 'x', "unexpected 'x'", 'write * between factors, and @ between a matrix'),
    (D + 'y = 2x', 9, ParseError, 'x', "unexpected 'x'", 'write * between factors, and @ between a matrix'),
    (D + 'y = (x + 1', 9, ParseError, '', 'the line ends too early', 'expected )'),
    (D + 'y = x + 1)', 9, ParseError, ')', "unexpected ')'", 'expected the end of the line'),
    (D + 'y = relu(x', 9, ParseError, '', 'the line ends too early', 'expected , or )'),
    (D + 'y = relu x', 9, ParseError, 'x', "unexpected 'x'", 'write relu(...)'),
    (D + 'y =', 9, ParseError, '', 'the line ends too early', 'expected an expression'),
    (D + '= x', 9, ParseError, '=', "unexpected '='", 'expected a name'),
    (D + 'y x', 9, ParseError, 'x', "unexpected 'x'", 'a definition is: name = expression'),
    (D + 'y = x +', 9, ParseError, '', 'the line ends too early', 'expected an expression'),
    (D + 'y = x ** ** 2', 9, ParseError, '**', "unexpected '**'", 'expected an expression'),
    (D + 'y == x', 9, ParseError, '=', "unexpected '='", 'expected an expression'),
    (D + 'y = x; z = x', 9, ParseError, ';', "unexpected ';'", 'expected an operator + - * / @ ^ or , or ) or ]'),
    (D + 'y = x & x', 9, ParseError, '&', "unexpected '&'", 'expected an operator + - * / @ ^ or , or ) or ]'),
    (D + 'y = W.t @ x', 9, ParseError, '.', "unexpected '.'", 'the transpose is W.T; names have no dots'),
    (D + 'y = x.T @ x', 9, ProgramError, 'x',
     'only matrices have a transpose', 'leave .T out; mean(u * v) is an inner product'),
    (D + 'y = x * W @ x', 9, ProgramError, 'W',
     '* and @ bind alike, left to right, so this is (x * W) @ ...', 'write x * (W @ x)'),
    (D + 'y = W * x', 9, ProgramError, 'W',
     '* is coordinatewise, and W is a matrix', 'write W @ x, or apply W to a vector in'),
    (D + 'y = W + x', 9, ProgramError, 'W', 'W is a matrix, not a vector', 'apply it to a vector with @: W @ v'),
    (D + 'y = B.T @ x', 9, ProgramError, 'vector n', 'B.T takes vectors along m', 'use B @ x'),
    (D + 'y = B @ v', 9, ProgramError, 'vector m', 'B takes vectors along n', 'use B.T @ v'),
    (D + 'y = x + v', 9, ProgramError, 'vector n and vector m',
     'one runs along n, the other along m', 'coordinatewise operations need one axis; use a'),
    (D + 'y = x @ x', 9, ProgramError, 'x',
     'the left side of @ is a matrix', 'write mean(x * x) for an inner product, or'),
    (D + 'y = W @ t', 9, ProgramError, 't', 'the right side of @ is a vector', 'multiply by a scalar with *'),
    (D + 'y = B @ B @ x', 9, ProgramError, 'm x n @ m x n', 'the inner axes differ', 'transpose one of the two'),
    (D + 'y = W + B', 9, ProgramError, 'n x n + m x n', 'the shapes differ', 'add matrices of one shape'),
    (D + 'y = relu(W)', 9, ProgramError, 'W',
     'W is a matrix, not a vector', 'apply it to a vector with @: W @ v'),
    (D + 'y = relu(x, v)', 9, ProgramError, 2,
     'relu takes 1 argument', 'give as many; parameters are rational numbers'),
    (D + 'y = rellu(x)', 9, ParseError, 'rellu', 'no such nonlinearity', 'did you mean relu, gelu, leaky_relu?'),
    (D + 'y = mean(t)', 9, ProgramError, 't', 'mean takes a vector', 'leave mean out'),
    (D + 'y = mean(x, x)', 9, ProgramError, 2, 'mean takes one argument', 'write mean(x)'),
    (D + 'y = trace(W)', 9, ProgramError, 'trace',
     'only the normalized trace is a number of order 1', 'write mean(trace(...))'),
    (D + 'y = mean(trace(B))', 9, ProgramError, 'm x n',
     'trace takes a square matrix', 'multiply by a transpose: W.T @ W'),
    (D + 'y = mean(W)', 9, ProgramError, 'W', 'mean takes a vector', 'write mean(trace(...)) for a matrix'),
    (D + 'y = diag(t)', 9, ProgramError, 't', 'diag takes a vector', 'multiply by a scalar with *'),
    (D + 'y = x^x', 9, ProgramError, 'x',
     'an exponent is a number times powers of dimensions', 'write for example 4/n, or 1/3'),
    (D + 'y = x^100', 9, ProgramError, '100', 'powers go up to 64', 'use a smaller power'),
    (D + 'y = x^(1/3) + W^2', 9, ProgramError, '2', 'no powers of matrices', 'write W @ W'),
    (D + 'y = x/0', 9, ProgramError, '0', 'division by zero', 'divide by a number that is not 0'),
    (D + 'y = x^sqrt(2)', 9, ProgramError, 'sqrt(2)',
     'an exponent is a rational number', 'write for example 1/2'),
    (D + 'y = 2^(10^9) * x', 9, ParseError, '1000000000',
     'exponents are fractions of numbers up to 1000000', 'use a smaller one'),
    (D + 'y = n^(10^9) * x', 9, ParseError, '1000000000',
     'exponents are fractions of numbers up to 1000000', 'use a smaller one'),
    (D + 'y = sqrt(-1) * x', 9, ProgramError, '(-1)^1/2',
     'a root of a negative number is not real', 'use a positive number'),
    (D + 'x = relu(x)', 9, ProgramError, 'x', 'x is defined already', 'use a new name'),
    (D + 'mean = x', 9, ParseError, 'mean', 'mean is a reserved word', 'use another name'),
    (D + 'y = vector', 9, ParseError, 'vector', 'vector is a reserved word', 'use another name'),
    (D + 'dim n', 9, ProgramError, 'n', 'n is defined already', 'use a new name'),
    (D + 'dim k = -1', 9, ParseError, '-1', 'a fixed axis has a positive whole size', 'dim k = 3'),
    (D + 'dim k = 1/2', 9, ParseError, '1/2', 'a fixed axis has a positive whole size', 'dim k = 3'),
    (D + 'dim k ~ n^-1', 9, ProgramError, '-1', 'an axis cannot shrink as n grows', 'use growth >= 0'),
    (D + 'dim k ~ sqrt(2)*n', 9, ParseError, 'sqrt(2)',
     'the factor of an axis is a rational number', 'dim k ~ 3/2*n'),
    (D + 'dim k ~ x', 9, ProgramError, 'x',
     'a size is a number times powers of dimensions', 'write for example 4/n, or 1/3'),
    (D + 'dim n = 3', 9, ProgramError, 'n', 'n is defined already', 'use a new name'),
    (D + 'dim k = 2*n', 9, ProgramError, '2*n', 'a fixed size has no powers of n', 'write: dim k ~ 2*n'),
    (D + 'matrix C : n y n', 9, ParseError, 'y', 'a shape is rows x cols', 'write: matrix W : n x n'),
    (D + 'matrix C : n x k', 9, ProgramError, 'k', 'dimension k is not declared', 'write above: dim k'),
    (D + 'matrix C : n', 9, ParseError, '', 'the line ends too early', 'expected a name'),
    (D + 'matrix C : n x n ~ U(0, 1)', 9, ParseError, 'U', 'unknown law U', 'use N(mean, variance)'),
    (D + 'matrix C : n x n ~ N(0)', 9, ParseError, ')', "unexpected ')'", 'expected ,'),
    (D + 'matrix C : n x n ~ N(0, -1/n)', 9, ProgramError, '-n^-1',
     'a variance is not negative', 'give the variance: N(0, 1/n)'),
    (D + 'matrix C : n x n ~ N(0, x)', 9, ProgramError, 'x',
     'a variance is a number times powers of dimensions', 'write for example 4/n, or 1/3'),
    (D + 'matrix C : n x n ~ N(0, [[1]])', 9, ParseError, '[[...]]',
     'only vectors are jointly Gaussian', 'give a matrix one variance: N(0, 1/n)'),
    (D + 'vector u, w : n ~ N(0, [[1, 1/2], [1/3, 1]])', 9, ProgramError, 'covariance',
     'a covariance is symmetric', 'make entry (i, j) equal to entry (j, i)'),
    (D + 'vector u, w : n ~ N(0, [[1, 2], [2, 1]])', 9, ProgramError, 'covariance',
     'a covariance is positive semidefinite', 'make every correlation at most 1 in size'),
    (D + 'vector u, w : n ~ N(0, [[1, 1/2]])', 9, ProgramError, '1 rows',
     '2 vectors have a 2 x 2 covariance and 2 means', 'give one row, one column and one mean each'),
    (D + 'vector u, u : n ~ N(0, [[1, 0], [0, 1]])', 9, ProgramError, 'u u',
     'a name occurs twice', 'use different names'),
    (D + 'vector u : n ~ N(0, 1', 9, ParseError, '', 'the line ends too early', 'expected )'),
    (D + 'vector u n', 9, ParseError, 'n', "unexpected 'n'", 'expected :'),
    (D + 'vector x : n', 9, ProgramError, 'x', 'x is defined already', 'use a new name'),
    (D + 'scalar s = x', 9, ProgramError, 'x',
     'a declared scalar is a number times powers of dimensions', 'write: s = x'),
    (D + 'scalar s = 1 + n', 9, ProgramError, '1 + n',
     'a declared scalar is a number times powers of dimensions', 'write: s = 1 + n'),
    (D + 'param V : 1 x n [a=0, a=1]', 9, ParseError, 'a, a', 'an option occurs twice', 'give each option once'),
    (D + 'param V : 1 x n [a=sqrt(2)]', 9, ProgramError, 'sqrt(2)',
     'the exponent a is a rational number', 'write for example 1/2'),
    (D + 'param V : 1 x n [init=two]', 9, ParseError, 'two',
     'init does not take this value', 'use init=normal, init=zero or init=one'),
    (D + 'param V : 1 x n [lr=1]', 9, ParseError, 'lr',
     'unknown option lr', 'use one of: a, b, c, init, role, trainable'),
    (D + 'param V : 1 x n [trainable=maybe]', 9, ParseError, 'maybe',
     'trainable does not take this value', 'use trainable=true or trainable=false'),
    (D + 'param V : 0 x n', 9, ParseError, '0', 'an axis needs a positive size', 'use 1 or more'),
    (D + 'input z : n', 9, ProgramError, 'n',
     'data has a fixed size', 'use a fixed dim, or a law N(mean, variance)'),
    (D + 'input z : d onehot 3', 9, ProgramError, 3, 'no such coordinate of 3', 'count from 0'),
    (D + 'input z : d = [1, 2]', 9, ProgramError, 2, 'the axis has 3 coordinates', 'give one value each'),
    (D + 'input z : d one 1', 9, ParseError, 'one', 'unexpected one', 'write: input tok : vocab onehot 3'),
    (D + 'input z : d = [n]', 9, ProgramError, 'n', 'a datum is a rational number', 'write for example 1/2'),
    (D + 'exponent t', 9, ProgramError, 't', 't is defined already', 'use a new name'),
    (D + 'y = n^alpha * x', 9, ProgramError, 'alpha',
     'alpha is not defined above this line', 'define it first, or declare it: vector alpha : n,'),
    (D + 'exponent alpha\ny = alpha * x', 10, ProgramError, '*',
     'unknown exponents stand in powers only, times numbers', 'write n^(2*alpha + 1)'),
    (D + 'exponent alpha\ny = x^alpha', 10, ProgramError, 'alpha',
     'only powers of dimensions have unknown exponents', 'write n^-alpha'),
    (D + 'exponent alpha\ny = n^(alpha^2) * x', 10, ProgramError, 'alpha',
     'an unknown exponent stands in a power only', 'write n^(alpha)'),
    (D + 'output y', 9, ProgramError, 'y', 'no such variable', 'name one of: W, B, x, v, t'),
    (D + 'loss hinge', 9, ParseError, 'hinge', 'no such loss', 'did you mean cross_entropy, logistic, squared?'),
    (D + 'loss squared\nloss squared', 10, ParseError, 'squared',
     'the loss is declared already', 'keep one of the two lines'),
    (D + 'matrx C : n x n', 9, ParseError, 'C', "unexpected 'C'", 'did you mean matrix? A definition is: name ='),
    (D + 'y = `x', 9, ParseError, '`', "unexpected '`'", 'expected an expression'),
    (D + 'y = \x00', 9, ParseError, '\x00', "unexpected '\\x00'", 'expected an expression'),
    (D + 'y = 1e99999 * x', 9, ParseError, '1e99999...', 'numbers have at most 1300 digits', 'use a power of n'),
    (D + 'y = softmax_2(x, x)', 9, ParseError, '2',
     'softmax_2 of 2 arguments: components count from 0', 'use softmax_0 to softmax_1'),
    (D + 'y = hermite(x)', 9, ParseError, 'hermite', 'hermite needs parameters', 'write hermite(x, 1)'),
    (D + 'y = a + 1\na = y', 9, ProgramError, 'a',
     'a is not defined above this line', 'move its line up; no definition may need itself'),
    (D + 'y = x $ 2', 9, ParseError, '$', "unexpected '$'", 'expected an operator + - * / @ ^ or , or ) or ]'),
    (D + 'y = x\n\n# comment\n\ny = x', 13, ProgramError, 'y', 'y is defined already', 'use a new name'),
    (D + 'y = e[W] * x', 9, ParseError, 'e[W]', 'only exponents of a weight are written so', 'write a[W]'),
    (D + 'y = n^x * x', 9, ProgramError, 'x',
     'an exponent is a number times powers of dimensions', 'write for example 4/n, or 1/3'),
    (D + 'return x', 9, ParseError, 'x', "unexpected 'x'", 'a definition is: name = expression'),
    (D + "y = x" + " * x" * 70, 9, ProgramError, '65', 'powers go up to 64', 'use a smaller power'),
    ('vector x : n', 1, ProgramError, 'n', 'dimension n is not declared', 'write above: dim n'),
    ('y = n^(1/2', 1, ParseError, '', 'the line ends too early', 'expected )'),
    ('dim', 1, ParseError, '', 'the line ends too early', 'expected a name or a number'),
    ('dim n\nvector x : n\r\ny = x + u\r\n', 3, ProgramError, 'u',
     'u is not defined above this line', 'define it first, or declare it: vector u : n,'),
]


def error_of(text):
    with pytest.raises(TensorProgError) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize(
    "text, line, kind, value, reason, fix", BAD, ids=lambda x: x[-30:] if isinstance(x, str) else None
)
def test_a_bad_text_is_explained(text, line, kind, value, reason, fix):
    error = error_of(text)
    assert type(error) is kind
    assert re.match(rf"{line}: ", error.line)
    assert error.value == value
    assert error.reason.startswith(reason)
    assert error.fix.startswith(fix)


@pytest.mark.parametrize("text", [row[0] for row in BAD], ids=range(len(BAD)))
def test_the_source_line_and_a_caret_are_shown(text):
    error = error_of(text)
    number, shown, caret = re.match(r"([0-9]+): (.*)\n( *\^)$", error.line).groups()
    source = re.split(r"\r\n|\n|\r", text)[int(number) - 1]
    assert shown.strip(".") in "".join(c if c.isprintable() else "?" for c in source)
    assert len(caret) <= len(f"line {number}: {shown}") + 1


def test_the_table_is_long_enough():
    assert len(BAD) >= 60


@pytest.mark.parametrize(
    "text, place",
    [
        (D + "y = x + zz", "zz"),
        (D + "y = x * (x + zz)", "zz"),
        (D + "   y = x +   v  # no", "+   v"),
        (D + "y = rellu(x)", "rellu"),
        (D + "y = x * W @ x", "* W @"),
        (D + "matrix C : n x k", "k"),
        (D + "y = 1 + 2 $", "$"),
        (D + "output q", "q"),
    ],
)
def test_the_caret_points_at_the_place(text, place):
    shown, caret = str(error_of(text)).split("\n")[:2]
    assert shown[caret.index("^"):].startswith(place)


def test_the_file_is_named():
    with pytest.raises(ProgramError, match=r"line net\.tp:2: y = x\n"):
        parse("dim n\ny = x", "net.tp")


def test_bytes_that_are_not_utf8():
    with pytest.raises(ParseError, match="not UTF-8") as caught:
        parse(b"dim n\nvector \xff : n")
    assert (caught.value.line, caught.value.value) == ("2", b"\xff")


def test_a_byte_order_mark_and_line_ends_of_all_systems():
    assert parse(b"\xef\xbb\xbfdim n\r\nvector x : n\ry = x + 1\n").names == ("x", "y")


def test_errors_survive_pickling():
    error = error_of("y = x")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("text", [
    "scalar t = " + "(" * 10_000 + "1" + ")" * 10_000,
    D + "y = " + "(" * 10_000 + "x" + ")" * 10_000,
    D + "y = " + "-" * 10_000 + "x",
    D + "y = " + " + ".join(["x"] * 10_000),
    D + "y = " + "tanh(" * 2_000 + "x" + ")" * 2_000,
    D + "y = " + "(x + " * 1_000 + "x" + ")" * 1_000,
    "\n" * 100_000,
    "# " + "long " * 10_000,
])
def test_long_and_deep_texts_are_read_quickly(text):
    start = time.perf_counter()
    parse(text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "text",
    [
        D + "y = " + "(" * 10_000 + "x",
        D + "y = x" + ")" * 10_000,
        D + "y = " + "2^" * 10_000 + "x",
        D + "y = " + "x" * 200_000,
        "scalar t = 2^(10^9)",
        "scalar t = n^(10^9)",
        "scalar t = 10^10^10^10",
        "scalar t = 1e999999999",
        "scalar t = " + "9" * 99_000,
        "scalar t = " + "sqrt(" * 5_000 + "2" + ")" * 5_000,
        "scalar t = " + " * ".join(["9" * 1000] * 50),
        "dim h ~ n^(10^9)",
        "scalar t = (1 + sqrt(2) + sqrt(3) + pi)^1000",
        "scalar t = 2^(1/1000003)",
    "scalar t = " + "sqrt(2 + " * 20 + "3" + ")" * 20,
    "scalar t = " + "*".join(f"(1 + sqrt({p}))" for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)),
    "scalar t = 1/(sqrt(2)/(1 + sqrt(2)) + sqrt(2) - 2)",
    "dim k ~ 10^30*n",
    "dim k = 10^30",
    ],
)
def test_what_is_too_large_is_refused_quickly(text):
    start = time.perf_counter()
    assert len(str(error_of(text))) < 1000
    assert time.perf_counter() - start < 5
