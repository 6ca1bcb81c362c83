"""For tests, ours and users': a market of named programs, random well-typed programs, assertions."""

from tensorprog.testing.limits import limit_programs as limit_programs
from tensorprog.testing.limits import random_limit_program as random_limit_program
from tensorprog.testing.market import assert_round_trip as assert_round_trip
from tensorprog.testing.market import market as market
from tensorprog.testing.programs import EVEN as EVEN
from tensorprog.testing.programs import ODD as ODD
from tensorprog.testing.programs import ONE_SIDED as ONE_SIDED
from tensorprog.testing.programs import TWO_SIDED as TWO_SIDED
from tensorprog.testing.programs import programs as programs
from tensorprog.testing.programs import random_program as random_program
