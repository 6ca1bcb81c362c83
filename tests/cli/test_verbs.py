"""The command line: what it answers, its exit statuses, and that every failure is one message."""

import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

import tensorprog as tp

from .terminal import MLP, answer, run

ROOT = Path(tp.__file__).parents[1]


def assert_rationals(*texts):
    for text in texts:
        assert text is None or isinstance(text, str) and str(Fraction(text)) == text


# ------------------------------------------------------------------------------------------------- the JSON


@pytest.mark.parametrize("spec", ["mlp", "mlp.tp", "nets.py:net"])
def test_derive_json(capsys, spec):
    data = answer(capsys, "derive", spec, "--optimizer", "adam", "--form", "table3")
    assert list(data["parameters"]) == ["W1", "W2", "V"]
    for row in data["parameters"].values():
        assert {"role", "a", "b", "c", "init_std", "lr", "multiplier", "reason"} <= set(row)
        assert_rationals(row["a"], row["b"], row["c"], row["init_std"], row["lr"], row["multiplier"])
    assert [(row["b"], row["c"]) for row in data["parameters"].values()] == [("0", "0"), ("1/2", "1"), ("1", "1")]
    assert data["multipliers"] == {}


def test_derive_json_of_a_multiplier(capsys):
    data = answer(capsys, "derive", "transformer", "--set", "depth=1", "--optimizer", "adam")
    assert data["multipliers"] == {"alpha": "1"}


@pytest.mark.parametrize(
    "parametrization, verdict", [("sp", "unstable"), ("ntp", "kernel"), ("mup", "feature_learning")]
)
def test_classify_json(capsys, parametrization, verdict):
    data = answer(capsys, "classify", "mlp", "--optimizer", "sgd", "--parametrization", parametrization)
    assert {"stable", "nontrivial", "feature_learning", "verdict", "r", "first_blowup", "weights"} <= set(data)
    assert data["verdict"] == verdict
    assert data["stable"] is (verdict != "unstable")
    assert_rationals(data["r"])
    if verdict == "unstable":
        assert {"variable", "step", "exponent"} <= set(data["first_blowup"])
        assert_rationals(data["first_blowup"]["exponent"])
    for row in data["weights"].values():
        assert {"update", "first_learns"} <= set(row)


def test_an_abc_file_says_the_same_as_the_name(capsys):
    by_name = answer(capsys, "classify", "mlp", "--parametrization", "sp")
    assert answer(capsys, "classify", "mlp", "--abc", "sp.json") == by_name


def test_show_json(capsys):
    data = answer(capsys, "show", "plain.tp")
    lines = {line["name"]: line for line in data["lines"]}
    assert lines["y"]["exponent"] == "0"
    assert lines["q"]["exponent"] == "-1/2"
    assert lines["q"]["text"] == "q = mean(y * x)"
    assert data["outputs"] == ["q"]


@pytest.mark.parametrize("format", ["text", "latex", "html", "mermaid", "dot"])
def test_show_formats(capsys, format):
    status, out, _ = run(capsys, "show", "plain.tp", "--format", format)
    assert status == 0
    assert "q" in out


def test_show_a_network_under_the_derived_parametrization(capsys):
    status, out, _ = run(capsys, "show", "mlp.tp")
    assert status == 0
    assert re.search(r"^f +: vector \S+ +n\^\(-1/2\)", out, re.M)
    assert "derived for adam" in out


def test_show_of_an_empty_program(capsys):
    assert answer(capsys, "show", "empty.tp")["lines"] == []


def test_regime_goes_to_the_architecture_or_to_the_dimensions(capsys, folder):
    wide = answer(capsys, "derive", "transformer", "--set", "depth=1", "--regime", "heads=1,d_head=0")
    assert wide["multipliers"]["alpha"] is None  # the head dimension is fixed: nothing depends on it
    two = MLP.replace("dim n", "dim n\ndim m ~ n").replace("W1 : n", "W1 : m").replace("n x n", "n x m")
    (folder / "two.tp").write_text(two)
    b = {m: answer(capsys, "derive", "two.tp", "--regime", f"m={m}")["parameters"]["W2"]["b"] for m in ("1", "1/2")}
    assert b == {"1": "1/2", "1/2": "1/4"}  # fan-in initialization


def test_freeze(capsys):
    data = answer(capsys, "derive", "mlp", "--freeze", "W1")
    assert data["parameters"]["W1"]["lr"] is None


def test_explain(capsys):
    status, out, _ = run(capsys, "derive", "mlp", "--explain", "W2")
    assert status == 0
    assert "W2" in out.rpartition("V ")[2]
    assert set(answer(capsys, "derive", "mlp", "--explain", "W2", "--explain", "V")["explanations"]) == {"W2", "V"}


# -------------------------------------------------------------------------------------------------- confirm

NTP = ("confirm", "mlp", "--set", "depth=1", "--parametrization", "ntp", "--steps", "1")
SIZES = ("--widths", "64,128,256,512,1024,2048,4096,8192", "--seeds", "64")
SMALL = ("--widths", "16,32,64,128", "--seeds", "2")


def test_confirm_json(capsys):
    data = answer(capsys, *NTP, *SIZES)
    assert data["verdict"] == "confirmed"
    assert {"h1@0", "Uh1@1", "Df@1"} <= {check["what"] for check in data["checks"]}
    for check in data["checks"]:
        assert {"what", "predicted", "measured", "low", "high", "verdict"} <= set(check)
        assert_rationals(check["predicted"])


def test_a_wrong_prediction_is_refuted_with_status_1(capsys, monkeypatch):
    from tensorprog.finite import network

    def wrongly(*args, **options):
        return confirm(*args, wrong={"h1@0": Fraction(1, 2)}, **options)

    confirm = network.confirm
    monkeypatch.setattr(network, "confirm", wrongly)
    status, out, _ = run(capsys, *NTP, *SIZES)
    assert status == 1
    assert out.splitlines()[-1].startswith("refuted: ")
    assert "h1@0: " in out, "what is refuted has its reason"


def test_too_few_runs_are_inconclusive_with_status_3(capsys):
    assert answer(capsys, *NTP, *SMALL, status=3)["verdict"] == "inconclusive"


def test_confirm_without_a_parametrization_confirms_the_derived_one(capsys):
    _, out, _ = run(capsys, "confirm", "mlp", "--set", "depth=1", "--optimizer", "adam", "--steps", "1", *SMALL)
    assert out.startswith("the derived µP, adam")
    assert max(map(len, out.splitlines())) <= 120


def test_confirm_goes_on_from_finished_runs(capsys, folder):
    words = (*NTP, *SMALL, "--out", "runs.jsonl")
    first = answer(capsys, *words, status=3)
    size = (folder / "runs.jsonl").stat().st_size
    assert size
    assert answer(capsys, *words, status=3) == first
    assert (folder / "runs.jsonl").stat().st_size == size, "nothing was run again"


def test_jobs_change_nothing(capsys):
    alone = answer(capsys, *NTP, *SMALL, status=3)
    assert answer(capsys, *NTP, *SMALL, "--jobs", "2", status=3) == alone


# ---------------------------------------------------------------------------------------------- exit statuses

BAD_INPUT = [
    # what was typed, and what the message has to say
    (["frobnicate", "mlp"], "No such command"),
    (["derive"], "SPEC"),
    (["derive", "mpl"], "did you mean mlp"),
    (["derive", "missing.tp"], "no such file"),
    (["derive", "missing.py:net"], "no such file"),
    (["derive", "."], "directory"),
    (["derive", "bad.tp"], "bad.tp:3"),
    (["derive", "latin.tp"], "UTF-8"),
    (["derive", "empty.tp"], "no trainable weights"),
    (["derive", "plain.tp"], "no trainable weights"),
    (["derive", "mlp.tp", "--set", "depth=2"], "no options"),
    (["derive", "mlp", "--set", "depht=2"], "did you mean depth"),
    (["derive", "mlp", "--set", "depth"], "key=value"),
    (["derive", "mlp", "--set", "depth=two"], "whole number"),
    (["derive", "mlp", "--set", "depth=0"], "at least 1"),
    (["derive", "mlp", "--set", "depth=1", "--set", "depth=2"], "twice"),
    (["derive", "mlp", "--set", "bias=maybe"], "true or false"),
    (["derive", "mlp", "--set", "activation=rellu"], "relu"),
    (["derive", "mlp", "--optimizer", "adma"], "did you mean"),
    (["derive", "mlp", "--form", "table7"], "table8"),
    (["derive", "mlp", "--steps", "0"], "--steps"),
    (["derive", "mlp", "--steps", "many"], "--steps"),
    (["derive", "mlp", "--freeze", "W9"], "no such weight"),
    (["derive", "mlp", "--regime", "n"], "heads=1,d_head=0"),
    (["derive", "mlp", "--regime", "m=1"], "no such dimension"),
    (["derive", "mlp", "--explain", "W9"], "W9"),
    (["derive", "nets.py:"], "nets.py:function"),
    (["derive", "nets.py:nte"], "no function of this name"),
    (["derive", "nets.py:number"], "does not return a Program"),
    (["derive", "nets.py:broken"], "ZeroDivisionError"),
    (["derive", "nets.py:broken"], "nets.py:12"),
    (["derive", "nets.py:leaves"], "SystemExit"),
    (["derive", "nets.py:needs"], "--set depth"),
    (["derive", "nets.py:net", "--set", "depth=x"], "whole number"),
    (["derive", "syntax.py:net"], "SyntaxError"),
    (["derive", "raises.py:net"], "raises.py:3"),
    (["classify", "mlp"], "--parametrization"),
    (["classify", "mlp", "--parametrization", "mip"], "mup"),
    (["classify", "mlp", "--parametrization", "sp", "--abc", "sp.json"], "exclude"),
    (["classify", "mlp", "--abc", "missing.json"], "no such file"),
    (["classify", "mlp", "--abc", "bad.json"], "bad.json:2"),
    (["classify", "mlp", "--abc", "list.json"], "not an object"),
    (["classify", "mlp", "--abc", "twice.json"], "twice"),
    (["classify", "mlp", "--abc", "nan.json"], "NaN"),
    (["classify", "mlp", "--abc", "other.json"], "no such weight"),
    (["confirm", "mlp", "--widths", "64,x"], "whole numbers"),
    (["confirm", "mlp", "--widths", "64,64"], "twice"),
    (["confirm", "mlp", "--jobs", "0"], "--jobs"),
    (["confirm", "mlp", "--seeds", "0"], "--seeds"),
    (["show", "mlp", "--format", "pdf"], "mermaid"),
    (["limit", "missing.tp"], "no such file"),
    (["limit", "bad.tp"], "bad.tp:3"),
    (["limit", "empty.tp"], "output"),
    (["limit", "plain.tp", "--name", "k"], "no such variable"),
    (["limit", "plain.tp", "--name", "W"], "a matrix has no limit"),
    (["limit", "plain.tp", "--method", "guess"], "exact"),
    (["limit", "plain.tp", "--tol", "-1"], "--tol 1"),
    (["limit", "plain.tp", "--tol", "nan"], "--tol 1"),
    (["limit", "plain.tp", "--budget", "0"], "--budget 1"),
    (["limit", "plain.tp", "--seed", "-1"], "--seed"),
    (["limit", "plain.tp", "--ratio", "k=rho"], "use one of n"),
    (["limit", "plain.tp", "--ratio", "n=2"], "--ratio n=rho"),
]


@pytest.mark.parametrize("words, said", BAD_INPUT, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_bad_input_is_one_message_and_status_2(capsys, words, said):
    status, out, err = run(capsys, *words)
    assert status == 2
    assert out == ""
    assert said in err
    assert err.startswith("error: line ")
    assert "\n  fix: " in err
    assert err.count("error: ") == 1


def test_what_the_theory_does_not_cover_is_status_3(capsys):
    status, out, err = run(capsys, "derive", "transformer", "--regime", "heads=1/2,d_head=1/2")
    assert (status, out) == (3, "")
    assert "two growing axes" in err


def test_what_cannot_be_solved_is_status_3(capsys, folder):
    (folder / "stuck.tp").write_text(MLP.replace("W2 : n x n", "W2 : n x n [a=0, c=0]"))
    status, _, err = run(capsys, "derive", "stuck.tp")
    assert status == 3
    assert "grows with n" in err


def test_a_bug_is_no_traceback(capsys, monkeypatch):
    def fails(*args, **kwargs):
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("tensorprog.cli.verbs.derive", fails)
    status, _, err = run(capsys, "derive", "mlp")
    assert status == 70
    assert "report" in err


def test_interruption_is_one_line_and_status_130(capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tensorprog.cli.verbs.confirm", interrupted)
    status, _, err = run(capsys, "confirm", "mlp", "--out", "runs.jsonl")
    assert status == 130
    assert err.count("\n") == 1
    assert "runs.jsonl" in err


# ------------------------------------------------------------------------------------------ help and friends


def test_alone_it_shows_help_and_three_examples(capsys):
    status, out, _ = run(capsys)
    assert status == 0
    examples = re.findall(r"^  tensorprog (\w+) (\w+)", out, re.M)
    assert [verb for verb, _ in examples] == ["derive", "classify", "confirm"]
    for verb in ("show", "derive", "classify", "limit", "kernel", "confirm"):
        assert verb in out


def test_verbs_of_the_future_are_not_there(capsys):
    _, out, _ = run(capsys)
    assert "  audit " not in out


@pytest.mark.parametrize("verb", ["show", "derive", "classify", "limit", "kernel", "confirm"])
def test_help_names_every_record(capsys, verb):
    from tensorprog.atoms.optimizers import optimizers

    status, out, _ = run(capsys, verb, "--help")
    assert status == 0
    for record in optimizers():
        assert record.name in out


def test_version(capsys):
    assert run(capsys, "--version")[1] == f"tensorprog {tp.__version__}\n"


def process(*words, **options):
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "tensorprog", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, **options)


def test_a_process_prints_plain_text_and_its_status():
    p = process("derive", "mlp")
    out, err = p.communicate()
    assert (p.returncode, err) == (0, b"")
    assert b"\x1b" not in out
    assert "W2" in out.decode()


def test_help_is_quick():
    start = time.perf_counter()
    p = process("--help")
    p.communicate()
    assert p.returncode == 0
    assert time.perf_counter() - start < 3


def test_help_loads_no_numpy():
    code = "import sys; from tensorprog.__main__ import main; main(['--help']); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


def test_a_terminal_that_cannot_show_a_letter():
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "tensorprog", "derive", "mlp"], env=env, capture_output=True)
    assert done.returncode == 0
    assert b"W2" in done.stdout


def test_a_closed_pipe_is_no_error():
    p = process("show", "transformer", "--json")
    p.stdout.close()
    err = p.stderr.read()
    p.stderr.close()
    assert p.wait() in (0, 141)
    assert err == b""


def test_ctrl_c_keeps_finished_runs(folder):
    # shells start background jobs deaf to Ctrl-C, and what they start inherits it
    p = process(*NTP, "--seeds", "20000", "--widths", "64,128,256,512", "--out", "runs.jsonl", cwd=folder,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    runs = folder / "runs.jsonl"
    for _ in range(600):
        if p.poll() is not None or (runs.exists() and runs.stat().st_size):
            break
        time.sleep(0.05)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130, err
    assert out == b""
    assert err.decode().count("\n") == 1
    assert runs.stat().st_size
