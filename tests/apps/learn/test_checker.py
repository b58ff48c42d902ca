"""A learner's file in a process of its own: whatever it does, the answer is a sentence."""

import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from command_calls import Call
from normlab.apps.learn import check_process, checker
from normlab.apps.learn.check_process import import_solution, main
from normlab.apps.learn.checker import CheckResult, check_file
from normlab.apps.learn.exercises import EXERCISES
from normlab.apps.learn.judges.mistake import MistakeError
from normlab.apps.learn.progress import read_progress
from normlab.archive.versioned_json import read_json

SOLUTIONS = Path(__file__).resolve().parents[3] / "docs" / "learn" / "solutions"


def write_solution(folder: Path, text: str, name: str = "fold_gain.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def judge_in_this_process(
    exercise: str, path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    monkeypatch.setattr(check_process, "_limit_resources", lambda: None)  # this process goes on
    monkeypatch.setattr("sys.path", [*sys.path])
    main(exercise, path, folder)
    return read_json(folder / "verdict.json")


# --- Through the process ------------------------------------------------------------------------


def test_a_file_that_loops_prints_and_has_children_is_stopped_in_time(tmp_path: Path) -> None:
    child = tmp_path / "child"
    path = write_solution(
        tmp_path,
        "import subprocess, sys\nprint('hello from the file', flush=True)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid))\n"
        "while True: pass\n",
    )
    verdict = check_file(path, EXERCISES["fold_gain"], seconds=1.0)
    assert not verdict.passed
    assert "stopped after 1 s; is there a loop that does not end?" in verdict.sentence
    assert verdict.printed == "hello from the file\n"
    pid = int(child.read_text())
    # Where nobody waits for it, what was ended stays in the table of processes.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_a_file_has_started_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    path = write_solution(
        tmp_path,
        "import subprocess, sys\n"
        "p = subprocess.Popen(\n"
        "    [sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True\n"
        ")\n"
        f"open({str(child)!r}, 'w').write(str(p.pid))\n",
    )
    verdict = check_file(path, EXERCISES["fold_gain"], seconds=30.0)
    assert "defines no function fold_gain" in verdict.sentence
    pid = int(child.read_text())
    with suppress(psutil.NoSuchProcess):
        started = psutil.Process(pid)
        deadline = time.monotonic() + 10  # a process that reads from a disk ends after that
        while started.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.05)
        assert started.status() == psutil.STATUS_ZOMBIE


def test_a_file_that_takes_too_much_memory_is_a_sentence(tmp_path: Path) -> None:
    path = write_solution(
        tmp_path, "import torch\nlarge = torch.empty(2**30)  # 4 GiB, none of it touched\n"
    )
    verdict = check_file(path, EXERCISES["fold_gain"], seconds=30.0)
    assert not verdict.passed
    assert "takes more memory than 3 GiB" in verdict.sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "x = 1\nwhile True:\n    print('x' * 10**6)\n",
            "line 3 of fold_gain.py prints or writes too much",
        ),
        ("import ctypes\nctypes.string_at(0)\n", "crashed (SIGSEGV)"),
        ("import os\nos._exit(0)\n", "the file ended with code 0 before"),
        pytest.param(
            "import os\nos.kill(os.getpid(), 9)\n",
            "was killed (SIGKILL), by the file or because memory ran out, before",
            marks=pytest.mark.slow,
        ),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n",
            "defines no function fold_gain",
        ),
    ],
)
def test_a_file_that_ends_its_process_or_prints_without_end_is_a_sentence(
    text: str, words: str, tmp_path: Path
) -> None:
    verdict = check_file(write_solution(tmp_path, text), EXERCISES["fold_gain"], seconds=30.0)
    assert not verdict.passed
    assert words in verdict.sentence


def test_the_command_checks_a_right_file_and_stores_that_it_passed(learn: Call) -> None:
    learn("start", "fold_gain")
    text = (SOLUTIONS / "fold_gain.py").read_text()
    Path("outputs/learn/fold_gain.py").write_text(text + "\nprint('here I am')\n")
    # Files of the current folder named like packages must not take their place.
    for name in ("torch.py", "json.py", "normlab.py"):
        Path(name).write_text("raise RuntimeError('not this one')\n")
        Path("outputs/learn", name).write_text("raise RuntimeError('nor this one')\n")
    code, out, err = learn("check", "outputs/learn/fold_gain.py")
    assert (code, err) == (0, "")
    assert "Your file printed:\nhere I am\n" in out
    assert "fold_gain: right. Done: fold a norm's gain and bias into the next matrix." in out
    assert not list(Path().rglob("__pycache__"))
    assert read_progress().exercises["fold_gain"].passed


# --- The same without a process -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("def fold_gain(:\n", "line 1 of fold_gain.py is not Python"),
        (
            "import torch\nimport nopackage\n",
            "line 2 of fold_gain.py imports nopackage, which",
        ),
        (
            "x = 1\ny = x / 0\n",
            "ZeroDivisionError: division by zero (line 2 of fold_gain.py).",
        ),
        (
            "import sys\nsys.exit(0)\n",
            "fold_gain.py, while it is imported, ends the program (line 2 of fold_gain.py); remove "
            "the call of exit.",
        ),
        ("raise BaseException('x')\n", "raises BaseException: x (line 1 of"),
        ("raise KeyboardInterrupt\n", "raises KeyboardInterrupt (line 1 of"),
        ("input()\n", "(line 1 of fold_gain.py)"),
        ("\0", "fold_gain.py is not a text file"),
    ],
)
def test_a_file_that_cannot_be_imported_is_a_sentence(
    text: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(MistakeError) as raised:
        import_solution(write_solution(tmp_path, text))
    assert word in str(raised.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("def another(gain): pass\n", "defines no function fold_gain"),
        ("fold_gain = 3\n", "fold_gain is a int (3); it must be a function"),
        ("def fold_gian(a, b, c): pass\n", "did you mean fold_gian?"),
        ("def fold_gain(): pass\n", "takes 0 positional arguments"),
        (
            "def fold_gain(g, b, w): return (w * g).float(), w @ b\n",
            "gives float32; the output must have the dtype of the input, float64",
        ),
        ("def fold_gain(g, b, w): return w * g / 0 * 0, w @ b\n", "gives NaN"),
        ("def fold_gain(g, b, w): return w\n", "it must give two tensors"),
        ("def fold_gain(g, b, w): return [g, 'x']\n", "gives a tensor of shape (8,)"),
        ("def fold_gain(g, b, w): raise MemoryError\n", "3 GiB"),
        ("def fold_gain(g, b, w): exit(0)\n", "ends the program (line 1 of fold_gain.py)"),
        (
            "def fold_gain(g, b, w): raise BaseException('x')\n",
            "raises BaseException: x (line 1 of fold_gain.py).",
        ),
        ("def fold_gain(g, b, w): raise KeyboardInterrupt\n", "raises KeyboardInterrupt"),
        (
            "class E(Exception):\n    __str__ = None\n\ndef fold_gain(g, b, w): raise E\n",
            "raises E (line 4 of fold_gain.py).",
        ),
        (
            "def fold_gain(g, b, w): return fold_gain(g, b, w)\n",
            "RecursionError: maximum recursion depth exceeded (line 1 of fold_gain.py). A function "
            "calls itself without end.",
        ),
        ("class fold_gain: pass\n", "fold_gain is a class; it must be a function"),
        ("async def fold_gain(g, b, w): return w\n", "write def without async"),
        ("async def fold_gain(g, b, w): yield w\n", "write def without async"),
        ("def fold_gain(g, b, w): yield w\n", "has a yield; use return"),
        ("def fold_gain(g, b, w): raise KeyError('x')\n", "raises KeyError: 'x'"),
        (
            "def fold_gain(g, b, w):\n    y = 1\n    return weihgt\n",
            "raises NameError: name 'weihgt' is not defined (line 3 of fold_gain.py).",
        ),
        (
            "def fold_gain(g, b, w):\n    import nopackage\n",
            "line 2 of fold_gain.py imports nopackage, which is not installed; the exercises need "
            "torch only.",
        ),
    ],
)
def test_a_solution_that_cannot_be_measured_is_a_sentence(
    text: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_solution(tmp_path, text)
    verdict = judge_in_this_process("fold_gain", path, tmp_path, monkeypatch)
    assert not verdict["passed"]
    assert word in verdict["sentence"]


@pytest.mark.parametrize(
    ("init", "line"),
    [("self.gain = nn.Parameter(torch.ones(width))", 6), ("self.eps = eps", 0)],
)
def test_an_init_without_that_of_module_is_told_what_to_call(
    init: str, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_solution(
        tmp_path,
        "import torch\nfrom torch import nn\n\nclass RMSNorm(nn.Module):\n"
        f"    def __init__(self, width, eps=1e-5):\n        {init}\n",
        "rmsnorm.py",
    )
    verdict = judge_in_this_process("rmsnorm", path, tmp_path, monkeypatch)
    sentence = str(verdict["sentence"])
    assert sentence.endswith("Call super().__init__() first in __init__.")
    assert ("(line 6 of rmsnorm.py)" in sentence) is bool(line)


def test_a_process_that_ends_without_a_verdict_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "printed").write_bytes(b"one\n\x1b[31mlast words\n")
    verdict = checker._read_verdict(tmp_path, -9, late="", limit=1.0)
    assert not verdict.passed
    assert "ran out, before the check was over; it last printed:" in verdict.sentence
    assert "\x1b" not in verdict.printed


def test_a_check_that_could_not_start_in_time_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker, "_MOST_START_SECONDS", 0.0)
    verdict = check_file(write_solution(tmp_path, ""), EXERCISES["fold_gain"], seconds=30.0)
    assert not verdict.passed
    assert verdict.sentence == (
        "the check could not start within 0 s, because torch was still being imported; try again "
        "when the machine is less busy."
    )


def test_what_a_file_prints_is_cut(tmp_path: Path) -> None:
    (tmp_path / "printed").write_bytes(b"x" * 10**6)
    (tmp_path / "verdict.json").write_text('{"passed": true, "sentence": ""}')
    verdict = checker._read_verdict(tmp_path, 0, late="", limit=1.0)
    assert verdict.passed
    assert len(verdict.printed) == 2001


# --- The command's own errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("outputs/learn/rmsnorm.py",), "outputs/learn/rmsnorm.py is not a file; `normlab-learn"),
        (("rmsnorm",), "outputs/learn/rmsnorm.py is not a file"),
        (("rmsnrm",), "did you mean rmsnorm?"),
        (("mine.py",), "mine.py is not named after an exercise"),
        (("rmsnorn.py",), "did you mean --exercise rmsnorm?"),
        (("mine.py", "--exercise", "rmsnrm"), "did you mean rmsnorm?"),
        (("mine.py", "--exercise", "formula"), "does not end in .yaml"),
        (("mine.py", "--exercise", "rmsnorm", "--seconds", "0"), "--seconds 0.0 is not allowed"),
        (("mine.py", "--exercise", "rmsnorm", "--seconds", "nan"), "--seconds nan is not"),
    ],
)
def test_a_file_that_cannot_be_checked_is_refused(
    arguments: tuple[str, ...], word: str, learn: Call
) -> None:
    Path("mine.py").write_text("")
    code, out, err = learn("check", *arguments)
    assert (code, out) == (2, "")
    assert word in err
    assert err.count("\n") == 1
    assert not Path("outputs").exists()


def test_a_wrong_solution_leaves_with_1_and_its_sentence(
    learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn("start", "rmsnorm")
    wrong = CheckResult(False, "ε stands outside the root.")
    monkeypatch.setattr(checker, "check_file", lambda *_: wrong)
    code, out, err = learn("check", "rmsnorm")
    assert (code, err) == (1, "")
    assert out == (
        "measuring outputs/learn/rmsnorm.py, for at most 30 s\n"
        "rmsnorm: not right yet: ε stands outside the root.\n"
        "normlab-learn hint rmsnorm shows a hint.\n"
    )
    entry = read_progress().exercises["rmsnorm"]
    assert (entry.passed, entry.checks) == (False, 1)


def test_a_solution_that_passed_once_stays_passed(
    learn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn("start", "rmsnorm")
    for passed in (True, False):
        verdict = CheckResult(passed, "wrong")
        monkeypatch.setattr(checker, "check_file", lambda *_, verdict=verdict: verdict)
        learn("check", "rmsnorm")
    entry = read_progress().exercises["rmsnorm"]
    assert (entry.passed, entry.checks) == (True, 2)
