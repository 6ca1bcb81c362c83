"""Linear algebra on one thread: tests run side by side, and threads that wait for each other cost more than they give.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
