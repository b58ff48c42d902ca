"""Nothing in the environment decides over a run: no launcher's ranks, no default of Lightning's."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from normlab import cli, config
from normlab.archive.record import RunRecord
from normlab.errors import NormlabError
from normlab.training import hardware
from normlab.training import run as training_run
from normlab.training.lightning import raise_signals
from normlab.training.run import train
from tiny_run import TINY, SilentDisplay

ROOT = Path(__file__).resolve().parents[2]

SLURM = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "x"}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
}
ENVIRONMENTS = {
    "one step": {"PL_TRAINER_FAST_DEV_RUN": "1"},
    "a part of the validation": {"PL_TRAINER_LIMIT_VAL_BATCHES": "1"},
    "a part of the training": {"PL_TRAINER_LIMIT_TRAIN_BATCHES": "2", "PL_TRAINER_MAX_TIME": "0"},
    "clipping": {"PL_TRAINER_GRADIENT_CLIP_VAL": "1e-6", "PL_TRAINER_OVERFIT_BATCHES": "1"},
    "Slurm": SLURM,
    "Slurm, a task": {"SLURM_PROCID": "2"},
    "Slurm, tasks": {"SLURM_NTASKS": "2"},
    "torchrun": TORCHRUN,
    "LSF": {"LSB_JOBID": "1", "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_RANK": "1"},
    "Open MPI": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1"},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    return {}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_run_is_the_same_whatever_a_launcher_has_set(
    name: str,
    plain: dict[str, RunRecord],
    specified: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trained(folder: str) -> RunRecord:
        spec = specified(*TINY, f"output_dir={tmp_path / folder}")
        return train(spec, "the command", SilentDisplay())

    if not plain:
        plain["record"] = trained("plain")
    for variable, value in ENVIRONMENTS[name].items():
        monkeypatch.setenv(variable, value)
    record = trained("set")
    assert (record.state, record.step) == ("finished", 6), record.reason
    assert record.final == plain["record"].final
    assert record.best == plain["record"].best
    assert all(os.environ[variable] == value for variable, value in ENVIRONMENTS[name].items())


def test_ranks_that_stand_before_python_starts_count_for_nothing(tmp_path: Path) -> None:
    ranks = {**SLURM, **TORCHRUN, "RANK": "a", "PL_TRAINER_FAST_DEV_RUN": "1"}
    done = subprocess.run(
        [sys.executable, "train.py", *TINY, f"output_dir={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, **ranks},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (path.parent for path in tmp_path.glob("*/*/run.json"))
    record = RunRecord.read(folder)
    assert (record.state, record.step) == ("finished", 6)
    assert list(folder.glob("events.*"))  # a process of another rank would write none


COMMANDS = {
    "a study": ("train.py", "-m", "seed=0,1", *TINY, "output_dir=OUT"),
    "a run": ("train.py", *TINY, "output_dir=OUT"),
    "a card": ("scripts/card.py", "norm=rmsnorm", "--out=OUT"),
    "a probe": ("scripts/probe.py", "norm=rmsnorm", "--out=OUT"),
    "a measurement": ("train.py", "experiment=gradient_vanishing", "output_dir=OUT"),
    "a claim": ("scripts/claims.py", "claim=variance_init_post", "output_dir=OUT"),
}


def execute(command: tuple[str, ...], out: Path, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *(word.replace("OUT", str(out)) for word in command)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


# torch itself takes seconds before it refuses a variable: once is enough.
REFUSING = """
import os
raise ValueError(f"Invalid log settings: {os.environ['TORCH_LOGS']}")
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_variable_that_torch_does_not_take_is_named(command: str, tmp_path: Path) -> None:
    environment = {"TORCH_LOGS": "something"}
    if command != "a study":
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "torch.py").write_text(REFUSING)
        environment["PYTHONPATH"] = str(tmp_path / "modules")
    code, err = execute(COMMANDS[command], tmp_path, **environment)
    assert (code, err.count("\n")) == (1, 1), err
    assert err.startswith("normlab: torch cannot be imported, for it does not take TORCH_LOGS=some")
    assert "unset TORCH_LOGS, or give it a value that torch takes" in err
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("threads", ["abc", "0", "-1", "1.5", "2,", "9" * 20])
def test_a_number_of_threads_that_is_none_is_refused(
    threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with pytest.raises(SystemExit) as left:
        cli._check_threads()
    message = str(left.value.code)
    assert message.startswith(f"normlab: OMP_NUM_THREADS={threads} in the environment is not a val")
    assert "\n" not in message


@pytest.mark.parametrize("threads", ["", " ", "2", " 2 ", "2,1"])
def test_no_number_of_threads_and_one_for_each_level_are_taken(
    threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    cli._check_threads()
    assert os.environ.get("OMP_NUM_THREADS") == (threads if threads.strip() else None)


def test_a_command_looks_at_the_number_of_threads(tmp_path: Path) -> None:
    version = ("train.py", "--version")
    code, err = execute(version, tmp_path, OMP_NUM_THREADS="abc")
    assert (code, err.count("\n")) == (1, 1), err
    assert err.startswith("normlab: OMP_NUM_THREADS=abc in the environment is not a valid")
    assert execute(version, tmp_path, OMP_NUM_THREADS=" ") == (0, "")


def test_a_run_that_ends_before_its_last_step_is_not_finished(
    specified: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = partial(training_run.pl.Trainer, limit_train_batches=2, max_time={"seconds": 0})
    monkeypatch.setattr(training_run.pl, "Trainer", short)
    record = train(specified(*TINY, f"output_dir={tmp_path}"), "the command", SilentDisplay())
    assert record.state == "failed"
    assert "of 6" in (record.reason or "")


def test_the_commit_is_of_these_sources_whatever_git_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (config.conf_folder().parent / ".git").exists():
        pytest.skip("the sources are in no repository")
    other = tmp_path / "other"
    git = ["git", "-c", "user.email=a@b", "-c", "user.name=a", "-C", str(other)]
    subprocess.run(["git", "init", "-q", str(other)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    hardware.git_state.cache_clear()
    expected = hardware.git_state()
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    hardware.git_state.cache_clear()
    assert hardware.git_state() == expected
    hardware.git_state.cache_clear()


def test_a_class_that_exits_is_no_signal() -> None:
    with pytest.raises(NormlabError, match=r"left the program \(exit 3\)"), raise_signals():
        sys.exit(3)


def test_what_lightning_makes_of_a_signal_is_the_signal_again() -> None:
    exit_of_lightning = SystemExit(1)
    exit_of_lightning.__context__ = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), raise_signals():
        raise exit_of_lightning
