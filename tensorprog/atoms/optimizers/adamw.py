"""AdamW: Adam's direction, and decoupled weight decay."""

from fractions import Fraction

from tensorprog.atoms.optimizers import optimizer, register
from tensorprog.atoms.rule import Rule

ADAMW = register(Rule(
    name="adamw", degree=Fraction(0), direction_of=optimizer("adam").direction_of, has_eps=True,
    weight_decay=Fraction(1, 10), sources=("loshchilov2019decoupled",),
))
