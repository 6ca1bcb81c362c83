"""The grammar of the text form, one start symbol for each kind of line, and its parser."""

from __future__ import annotations

from functools import cache

#: The words with which a line begins; each is the start symbol of what follows it.
STATEMENTS = ("dim", "matrix", "vector", "scalar", "param", "exponent", "input", "output", "loss")
#: Words of expressions.
WORDS = ("mean", "sum", "trace", "diag", "sqrt", "pi")
RESERVED = frozenset(STATEMENTS + WORDS)

GRAMMAR = r"""
dim       : _target [TILDE expr | EQUALS expr]
_target   : NAME | NUMBER
matrix    : names COLON axis NAME axis [law | EQUALS expr]
vector    : names COLON axis [law | EQUALS expr]
scalar    : NAME [EQUALS expr]
param     : names COLON axis NAME axis [law] [options]
exponent  : names
input     : names [COLON axis] [onehot | data]
output    : names
loss      : NAME
assign    : NAME EQUALS expr

names     : NAME (COMMA NAME)*
axis      : NAME | NUMBER
law       : TILDE NAME LPAR (expr | list) COMMA (expr | table) RPAR
list      : LSQB expr (COMMA expr)* RSQB
table     : LSQB list (COMMA list)* RSQB
options   : LSQB option (COMMA option)* RSQB
option    : NAME EQUALS (STRING | expr)
onehot    : NAME NUMBER
data      : EQUALS (list | expr)

?expr     : product | product (_sign product)+ -> sum
_sign     : PLUS | MINUS
?product  : unary | unary (_times unary)+
_times    : STAR | SLASH | AT
?unary    : power | MINUS unary -> negative | PLUS unary -> positive
?power    : postfix | postfix POWER unary
?postfix  : atom | postfix DOT_T -> transpose
?atom     : NUMBER -> number | NAME -> variable | NAME LPAR expr (COMMA expr)* RPAR -> call
          | NAME LSQB NAME RSQB -> symbol | LPAR expr RPAR -> parentheses

NAME      : /[^\W\d]\w*|`[^`]*`/
NUMBER    : /[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?/
STRING    : /"[^"]*"/
POWER     : "^" | "**"
DOT_T     : /\.T(?!\w)/
PLUS      : "+"
MINUS     : "-"
STAR      : "*"
SLASH     : "/"
AT        : "@"
TILDE     : "~"
EQUALS    : "="
COLON     : ":"
COMMA     : ","
LPAR      : "("
RPAR      : ")"
LSQB      : "["
RSQB      : "]"
%ignore /[ \t\r\f]+/
"""

#: How an error message calls terminals: those of a group that are all possible, by one name.
_GROUPS = (
    (("NAME", "NUMBER", "LPAR", "MINUS"), "an expression"),
    (("PLUS", "STAR", "AT", "MINUS"), "an operator + - * / @ ^"),
)
_TERMINALS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "POWER": "^",
    "DOT_T": ".T",
    "PLUS": "+",
    "MINUS": "-",
    "STAR": "*",
    "SLASH": "/",
    "AT": "@",
    "TILDE": "~",
    "EQUALS": "=",
    "COLON": ":",
    "COMMA": ",",
    "LPAR": "(",
    "RPAR": ")",
    "LSQB": "[",
    "RSQB": "]",
    "$END": "the end of the line",
}
_HIDDEN = frozenset(("POWER", "DOT_T", "PLUS", "MINUS", "STAR", "SLASH", "AT"))


def expected(terminals: list[str]) -> str:
    """Return what a line could have gone on with, in words.

    >>> expected(["RPAR", "PLUS", "STAR", "AT", "MINUS", "COMMA"])
    'an operator + - * / @ ^ or , or )'
    """
    left, words = set(terminals), []
    for group, word in _GROUPS:
        if left.issuperset(group):
            words.append(word)
            left -= {*group, *_HIDDEN} if "STAR" in group else {*group, "PLUS"}
            if "STAR" in group:
                left -= {"LPAR", "LSQB"}  # calls and a[W] are rare
    words += [_TERMINALS[t] for t in _TERMINALS if t in left]
    return " or ".join(words) or "the end of the line"


@cache
def parser():
    """Return the LALR parser; lark is imported and the tables are made at the first call."""
    from lark import Lark

    return Lark(
        GRAMMAR, parser="lalr", start=[*STATEMENTS, "assign"], maybe_placeholders=True, propagate_positions=False
    )
