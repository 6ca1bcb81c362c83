"""The repository itself: sizes of files, one direction of imports, no evaluation of text, metadata that agree."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tensorprog
from tensorprog.program.instructions import INSTRUCTIONS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tensorprog"
SOURCES = sorted(PACKAGE.rglob("*.py"))
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text())


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_short_and_says_what_it_is(path):
    text = path.read_text()
    assert text.count("\n") < 500
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module starts with a sentence on what it is"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_text_is_ever_evaluated(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert called not in {"eval", "exec", "sympify", "parse_expr", "compile"} or (
                called == "compile" and isinstance(node.func, ast.Attribute)), f"{relative(path)}:{node.lineno}"


HEAVY = {"torch", "matplotlib", "scipy", "sympy", "lark", "networkx", "rich"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_heavy_packages_are_imported_inside_functions(path):
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {n.split(".")[0] for n in names} & HEAVY, f"{relative(path)}:{node.lineno}"


def tables():
    """Return every rule table of the package, found by importing all of it."""
    import importlib
    import pkgutil

    from tensorprog.interp.rules import Rules

    found = {}
    for info in pkgutil.walk_packages([str(PACKAGE)], "tensorprog."):
        if info.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, Rules):
                found[value.name] = value
    return found


def test_every_rule_table_is_total():
    found = tables()
    assert len(found) >= 3, "the search for tables finds them"
    for name, table in found.items():
        assert table.missing() == [], f"rule table {name} lacks a rule"


def test_there_are_five_instructions():
    assert [x.__name__ for x in INSTRUCTIONS] == ["Input", "MatMul", "Nonlin", "Moment", "Outer"]


def test_the_version_is_in_one_place():
    assert METADATA["project"]["dynamic"] == ["version"]
    assert (ROOT / METADATA["tool"]["hatch"]["version"]["path"]).is_file()
    assert f"version: {tensorprog.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {tensorprog.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_bound_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    for line in re.findall(r'^ +"[\w.-]+>=.*$', text, re.M):
        assert "#" in line, f"say why: {line.strip()}"


def test_sources_of_records_are_in_the_bibliography():
    from tensorprog.atoms.optimizers import optimizers
    from tensorprog.atoms.registry import nonlinearities

    keys = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "docs" / "refs.bib").read_text(), re.M))
    for record in (*nonlinearities(), *optimizers()):
        assert set(record.sources) - {"user"} <= keys, f"{record.name}: add its source to docs/refs.bib"


def test_every_check_of_ci_is_named_in_contributing():
    said = (ROOT / "CONTRIBUTING.md").read_text()
    for command in ("ruff check", "pyright", "lint-imports", "pytest", "sphinx-build"):
        assert command in (ROOT / ".ci" / "run").read_text()
        assert command in said


def test_ci_runs_the_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    first, second = re.findall(r"^\$ (pip install .*)$", (ROOT / "README.md").read_text(), re.M)[:2]
    for command in (*first.split(" && ")[1:], second.split(" && ")[1]):
        assert f"{command}\n" in script


def test_the_ci_script_is_valid_bash():
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0


def code_blocks(path: Path) -> str:
    """Return the Python of a Markdown file's doctest blocks."""
    return "\n".join(re.findall(r"```(?:python|pycon)\n(>>>.*?)```", path.read_text(), re.S))


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", [p for p in PAGES if "_build" not in p.parts], ids=relative)
def test_snippets_of_the_pages(path, tmp_path, monkeypatch):
    import doctest

    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(code_blocks(path), {}, path.name, str(path), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    out: list[str] = []
    runner.run(test, out=out.append)
    assert not runner.failures, "".join(out)


def test_there_are_snippets_to_test():
    assert ">>>" in code_blocks(ROOT / "README.md")


def shell_commands(text: str) -> list[str]:
    return re.findall(r"^\$ (tensorprog .*)$", text, re.M)


def test_commands_of_the_readme_do_what_stands_under_them():
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    shown = [b for b in blocks if "$ tensorprog" in b]
    assert shown
    for block in shown:
        for command, wanted in re.findall(r"^\$ tensorprog (.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
            done = subprocess.run([sys.executable, "-m", "tensorprog", *command.split()], cwd=ROOT, text=True,
                                  capture_output=True)
            printed = [line.rstrip() for line in done.stdout.splitlines()]
            for line in filter(None, map(str.rstrip, wanted.splitlines())):
                if line != "...":
                    assert line in printed, f"tensorprog {command}\n{done.stdout}{done.stderr}"
