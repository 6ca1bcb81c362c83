"""A folder with programs, networks and abc files, good and bad ones, where every command of these tests runs."""

import pytest

from .terminal import LIMIT, MLP, NETS, PLAIN


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlp.tp").write_text(MLP)
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "plain.tp").write_text(PLAIN)
    (tmp_path / "limit.tp").write_text(LIMIT)
    (tmp_path / "empty.tp").write_text("")
    (tmp_path / "bad.tp").write_text("dim n\nvector x : n\ny = x +\n")
    (tmp_path / "latin.tp").write_bytes("dim n # größe".encode("latin-1"))
    (tmp_path / "syntax.py").write_text("def net(:\n")
    (tmp_path / "raises.py").write_text("import tensorprog\n\nraise ValueError('on import')\n")
    (tmp_path / "sp.json").write_text('{"*": {"a": "0", "b": "1/2", "c": "0"}, "W1": {"a": 0, "b": "0", "c": "0"}}')
    (tmp_path / "bad.json").write_text('{"W1": \n}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "twice.json").write_text('{"*": {"a": "0", "b": "0", "c": "0"}, "*": {"a": "0", "b": "0", "c": "0"}}')
    (tmp_path / "nan.json").write_text('{"*": {"a": NaN, "b": "0", "c": "0"}}')
    (tmp_path / "other.json").write_text('{"U": {"a": "0", "b": "0", "c": "0"}}')
    return tmp_path
