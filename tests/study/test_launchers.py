"""Studies go through Hydra's other launchers: the same runs and figures, and they resume."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny_run import TINY

ROOT = Path(__file__).resolve().parents[2]
OVERRIDES = ("-m", "norm=rmsnorm,none", *TINY)


def train_with_joblib(folder: Path) -> str:
    command = [sys.executable, str(ROOT / "train.py"), *OVERRIDES, f"output_dir={folder}"]
    command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def results(folder: Path) -> dict[str, object]:
    """Final and best losses by run id, which is the hash of the configuration."""
    records = [json.loads(path.read_text()) for path in folder.glob("*/*/run.json")]
    return {record["id"]: (record["final"], record["best"]) for record in records}


@pytest.mark.slow
def test_joblib_gives_the_runs_losses_and_figures_of_the_own_launcher(
    tmp_path: Path, train_py: Callable
) -> None:
    own, joblib = tmp_path / "own", tmp_path / "joblib"
    assert train_py(*OVERRIDES, f"output_dir={own}", "jobs=1").code == 0
    train_with_joblib(joblib)
    assert results(joblib) == results(own)
    assert len(results(joblib)) == 2
    figures = {path.name for path in own.glob("*/figures/*.png")}
    assert figures
    assert {path.name for path in joblib.glob("*/figures/*.png")} == figures


@pytest.mark.slow
def test_a_study_of_joblib_resumes(tmp_path: Path) -> None:
    train_with_joblib(tmp_path / "joblib")
    before = results(tmp_path / "joblib")
    shutil.rmtree(next(tmp_path.glob("joblib/*/rmsnorm-*")))
    assert "1 already there, 1 to train" in train_with_joblib(tmp_path / "joblib")
    assert results(tmp_path / "joblib") == before


def test_a_launcher_that_refuses_its_keys_is_answered_in_a_sentence(
    train_py: Callable, tmp_path: Path
) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=0")
    answer = train_py("-m", *TINY, *launcher, "norm=rmsnorm", f"output_dir={tmp_path}")
    assert answer.code == 2
    assert "the launcher failed (ValueError: n_jobs == 0" in answer.err


def test_a_launcher_whose_scheduler_is_missing_is_answered_in_a_sentence(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slurm's is, which raises a RuntimeError where there is no `srun`."""
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

    def launch(*arguments: object) -> None:
        raise RuntimeError('Could not detect "srun"')

    monkeypatch.setattr(JoblibLauncher, "launch", launch)
    request = ("-m", *TINY, "hydra/launcher=joblib", "norm=rmsnorm", f"output_dir={tmp_path}")
    answer = train_py(*request)
    assert answer.code == 2
    assert 'the launcher failed (RuntimeError: Could not detect "srun")' in answer.err
    assert "Traceback" not in answer.err
