"""Ctrl-C while a command imports, or while it works, ends it without a traceback."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from normlab import cli

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

# The signal comes when a module is first looked for, as a user's may.
CALL = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {at!r}:
            os.kill(os.getpid(), {signum})

sys.meta_path.insert(0, Interrupter())
sys.argv = ["command", *{arguments!r}]
{call}
"""


def interrupted(
    call: str, at: str, *arguments: str, signum: int = signal.SIGINT
) -> "subprocess.CompletedProcess[str]":
    code = CALL.format(at=at, call=call, arguments=arguments, signum=int(signum))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


# What an installer writes into the command, and what stands in the checkout.
CALLS = {
    name: f"from {target.replace(':', ' import ')} as main; main()"
    for name, target in COMMANDS.items()
} | {
    path: "import runpy, sys; sys.path.insert(0, 'scripts'); "
    f"runpy.run_path({path!r}, run_name='__main__')"
    for path in (
        "train.py",
        "scripts/plot.py",
        "scripts/sample.py",
        "scripts/card.py",
        "scripts/probe.py",
        "scripts/learn.py",
    )
}


SIGNALS = pytest.mark.parametrize(
    "signum", [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name
)


@SIGNALS
@pytest.mark.parametrize("name", CALLS)
def test_a_signal_during_imports_is_a_word_and_no_traceback(name: str, signum: int) -> None:
    done = interrupted(CALLS[name], "normlab.archive.files", signum=signum)
    assert (done.returncode, done.stdout, done.stderr) == (-signum, "", "stopped\n")


@pytest.mark.parametrize("path", ["train.py", "scripts/plot.py", "scripts/claims.py"])
def test_bytes_that_are_no_text_are_one_sentence(path: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / path, b"output_dir=out\xff"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "output_dir=out\ufffd has the byte 0xff, which is no text in UTF-8" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_byte_that_is_typed_and_is_no_text_is_no_answer(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/learn.py", "quiz"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        input=b"\xff\n",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "\ufffd is not an answer here" in done.stdout.decode()


def test_a_second_ctrl_c_does_not_interrupt_the_answer_to_the_first() -> None:
    code = (
        "import os, signal; from normlab.training import stopping; stopping.raise_on_signals()\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(
    ("signum", "replaced"),
    [
        pytest.param(signal.SIGINT, True, id="SIGINT-replaced"),
        pytest.param(signal.SIGTERM, True, id="SIGTERM-replaced"),
        pytest.param(signal.SIGINT, False, id="SIGINT-swallowed"),
        pytest.param(signal.SIGTERM, False, id="SIGTERM-swallowed", marks=pytest.mark.slow),
    ],
)
def test_a_signal_whose_exception_a_library_loses_still_stops_the_study(
    signum: int, replaced: bool, tmp_path: Path
) -> None:
    """As where it comes in the middle of a library's cleanup."""
    code = (
        "import signal; from normlab import cli; from normlab.study import sweep\n"
        "from omegaconf.errors import ConfigKeyError\n"
        "plan = sweep.make_plan\n"
        "def make_plan(*arguments):\n"
        f"    try: signal.raise_signal({int(signum)})\n"
        "    except KeyboardInterrupt:\n"
        f"        if {replaced}: raise ConfigKeyError('a key does not exist')\n"
        "    return plan(*arguments)\n"
        "sweep.make_plan = make_plan\n"
        "cli.study()"
    )
    command = ("-m", "data=synthetic", f"output_dir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 128 + signum
    assert done.stderr == b"stopped; the same command goes on where it was\n"


@pytest.mark.parametrize("ignored", [True, False])
def test_a_terminal_that_closes_is_no_signal_for_what_nohup_began(ignored: bool) -> None:
    code = (
        f"import signal; {ignored} and signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from normlab.training import stopping; stopping.raise_on_signals()\n"
        "try: signal.raise_signal(signal.SIGHUP)\n"
        "except stopping.Terminated as stopped: print(stopping.exit_code(stopped))\n"
        "else: print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.stdout == (b"goes on\n" if ignored else b"129\n")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", [name for name in CALLS if name.endswith(".py")])
def test_ctrl_c_before_any_module_handles_signals_is_a_word(name: str) -> None:
    done = interrupted(CALLS[name], "normlab.cli")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@SIGNALS
def test_a_signal_while_a_command_works_is_a_word(signum: int, tmp_path: Path) -> None:
    done = interrupted(CALLS["normlab-plot"], "normlab.analysis.figures", str(tmp_path))
    assert done.returncode == 1  # there is nothing to draw
    assert "holds no runs" in done.stderr
    command = (CALLS["normlab-card"], "torch", "norm=rmsnorm", f"--out={tmp_path}")
    done = interrupted(*command, signum=signum)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signum, "", "stopped\n")


FILES = {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}
SCRIPTS = ["train.py", *sorted(FILES - {"scripts/run_command.py"})]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_without_the_packages_is_told_which_and_what_to_do(script: str) -> None:
    # Without `site`, no installed package is found.
    done = subprocess.run(
        [sys.executable, "-S", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    for word in ("normlab is not installed", "make demo", ".venv/bin/python"):
        assert word in done.stderr


def test_a_package_that_is_missing_later_is_named_too() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "train.py"],
        cwd=ROOT,
        env={"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "hydra is not installed" in done.stderr  # the first that is imported


@pytest.mark.parametrize("version", [(3, 10, 12), (3, 14, 0)])
def test_another_python_is_refused_in_a_sentence(
    version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit) as left:
        cli.study()
    assert "use 3.11, 3.12 or 3.13" in str(left.value.code)
