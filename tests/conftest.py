"""Fixtures that many tests use: a composed run, and train.py called in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from normlab import config
from normlab.apps.experiments import MEASURED_EXPERIMENTS, TRAINED_EXPERIMENTS
from normlab.config.compose import register_schemas
from normlab.config.run_spec import RunSpec, make_run_spec
from normlab.study.command import main
from tiny_run import keep_last


@pytest.fixture
def specified() -> Callable[..., RunSpec]:
    """Composes overrides into a run, as the study does."""

    def compose_run(*overrides: str) -> RunSpec:
        register_schemas()
        with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
            composed = compose("train", list(overrides), return_hydra_config=True)
        choices = dict(composed.hydra.runtime.choices)
        with open_dict(composed):
            del composed["hydra"]
        return make_run_spec(composed, choices)

    return compose_run


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Piped text is as long as it is: whoever runs the tests may have set a width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@dataclass
class CommandResult:
    code: int
    out: str
    err: str


@pytest.fixture
def train_py(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., CommandResult]:
    """Calls the main function of train.py with these arguments, in this process."""

    def call(*arguments: str) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["train.py", *keep_last(arguments)])
        code = 0
        try:
            main(TRAINED_EXPERIMENTS, MEASURED_EXPERIMENTS)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        out, err = capfd.readouterr()
        return CommandResult(code, out, err)

    return call
