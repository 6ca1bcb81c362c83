"""The peer's tests exist only where an interpreter that has it is named: TENSORPROG_PEER=.../python pytest tests/peer.

It is another environment, made from requirements.txt; nothing of it is imported here.
"""

import os

collect_ignore_glob = [] if os.environ.get("TENSORPROG_PEER") else ["test_*.py"]
