"""Fixtures that many tests use: a composed run, and train.py called in this process."""

import os
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import open_dict

from normlab import config
from normlab.apps.experiments import MEASURED_EXPERIMENTS, TRAINED_EXPERIMENTS
from normlab.config.compose import register_schemas
from normlab.config.gate import TRUST_VARIABLE
from normlab.config.run_spec import RunSpec
from normlab.config.specify import make_run_spec
from normlab.study import workers
from normlab.study.command import main
from normlab.study.composition import RunComposer
from tiny_run import keep_last


def compose_run(*overrides: str) -> RunSpec:
    """Composes overrides into a run, as the study does."""
    register_schemas()
    with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
        composed = compose("train", list(overrides), return_hydra_config=True)
    choices = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return make_run_spec(composed, choices)


@pytest.fixture(scope="session")
def composed() -> Callable[..., RunSpec]:
    """Composes overrides into a run, with Hydra at every call."""
    return compose_run


_COMPOSERS: dict[str | None, RunComposer] = {}
_SPECS: dict[tuple[str | None, ...], RunSpec] = {}
_FOLDER = "output_dir="


@pytest.fixture(scope="session")
def specified() -> Callable[..., RunSpec]:
    """Composes overrides into a run as a study does: a copy, where the same were composed before.

    Composing takes longer than many a test. Beside the overrides, a run depends on nothing but the
    modules that are trusted; where its results are written is set in the copy.
    """

    def specify(*overrides: str) -> RunSpec:
        others = [word for word in overrides if not word.startswith(_FOLDER)]
        trusted = os.environ.get(TRUST_VARIABLE)
        key = (trusted, *others)
        if key not in _SPECS:
            register_schemas()
            with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
                if trusted not in _COMPOSERS:
                    loader = GlobalHydra.instance().config_loader()
                    master = compose("train", [], return_hydra_config=True)
                    _COMPOSERS[trusted] = RunComposer(loader, master)
                _SPECS[key] = _COMPOSERS[trusted].compose(others)
        spec = deepcopy(_SPECS[key])
        for folder in (word.removeprefix(_FOLDER) for word in overrides if word not in others):
            spec.config.output_dir = spec.plain["output_dir"] = folder
        return spec

    return specify


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Piped text is as long as it is: whoever runs the tests may have set a width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures of a study, which take most of the time of a tiny one."""
    monkeypatch.setattr("normlab.analysis.figures.draw_figures", lambda *arguments: [])


@pytest.fixture
def draw_only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Draw of a study the figures of these names alone."""
    from normlab.analysis import figures

    every = figures._figure_drawers

    def select(*names: str) -> None:
        monkeypatch.setattr(
            figures, "_figure_drawers", lambda *of: {name: every(*of)[name] for name in names}
        )

    return select


@dataclass
class CommandResult:
    code: int
    out: str
    err: str


@pytest.fixture
def train_py(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., CommandResult]:
    """Calls the main function of train.py with these arguments, in this process.

    The fork server outlives a command that was refused: to import torch again takes 7 s of the
    processor. `test_start.py` tests that it is stopped.
    """
    monkeypatch.setattr(workers, "stop_fork_server", lambda: None)

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
