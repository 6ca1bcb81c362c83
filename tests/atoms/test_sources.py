"""Every record names its sources, and every source is in the bibliography."""

import re
from pathlib import Path

import pytest

import tensorprog
from tensorprog.atoms.losses import losses
from tensorprog.atoms.optimizers import optimizers
from tensorprog.atoms.parametrizations import parametrizations
from tensorprog.atoms.registry import nonlinearities

BIB = (Path(tensorprog.__file__).parents[1] / "docs" / "refs.bib").read_text(encoding="utf-8")
KEYS = re.findall(r"^@\w+\{([^,\s]+),", BIB, re.MULTILINE)
RECORDS = [*nonlinearities(), *losses(), *optimizers(), *parametrizations()]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: f"{type(r).__name__}-{r}")
def test_sources_are_in_the_bibliography(record):
    assert record.sources
    assert set(record.sources) <= set(KEYS)


def test_keys_are_unique_and_entries_balanced():
    assert len(KEYS) == len(set(KEYS)) >= 30
    assert BIB.count("{") == BIB.count("}")
    for entry in BIB.split("\n@")[1:]:
        assert "title = {" in entry
