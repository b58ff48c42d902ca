"""Whatever is typed or stands in a file is planned or refused in a sentence, never a traceback."""

import random
import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mutations
from normlab.study import sweep

FAST, ALL = 25, 500
SEEDS = [*range(FAST), *(pytest.param(n, marks=pytest.mark.slow) for n in range(FAST, ALL))]


class NoLauncher:
    def launch(self, jobs: Any, first: int) -> list[Any]:
        return []


@pytest.fixture
def planned(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Calls train.py up to where training would begin; checks that bad input gets one sentence."""
    monkeypatch.setattr(
        sweep.StudySweeper, "_instantiate_launcher", lambda self, runs: NoLauncher()
    )
    monkeypatch.setattr(sweep, "_raise_failures", lambda *given: None)
    monkeypatch.setattr(sweep, "draw_study", lambda terminal, plan, experiments: "")
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def call(*arguments: str) -> None:
        answer = train_py(*arguments)
        given = f"{arguments} gave {answer.code}: {answer.err}"
        assert "Traceback" not in answer.err, given
        assert answer.code in (0, 1, 2), given
        if answer.code == 0:
            assert not answer.err, given
            shutil.rmtree(here / "outputs", ignore_errors=True)
            return
        assert is_a_sentence(answer.err), given
        assert list(here.iterdir()) == [], given

    return call


def no_network(*given: Any, **more: Any) -> None:
    raise urllib.error.URLError("no network in tests")


def is_a_sentence(said: str) -> bool:
    """One line; of an expression two more, with a caret where it goes wrong."""
    first, *pointer = said.splitlines()
    if pointer and not (len(pointer) == 2 and set(pointer[1]) <= set(" ^~")):
        return False
    return first.startswith("normlab: ") and len(first) < 1500


@pytest.mark.parametrize("seed", SEEDS)
def test_any_override_is_planned_or_refused_in_a_sentence(seed: int, planned: Callable) -> None:
    planned(mutations.override(random.Random(f"override {seed}")))


@pytest.mark.parametrize("seed", SEEDS)
def test_any_file_is_planned_or_refused_in_a_sentence(
    seed: int, planned: Callable, tmp_path: Path
) -> None:
    dice = random.Random(f"file {seed}")
    group = dice.choice(mutations.GROUPS)
    original = dice.choice(mutations.files(group)).read_text()
    path = tmp_path / "own" / group / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(mutations.text(dice, original))
    planned(
        "--config-dir", str(tmp_path / "own"), f"{'+' if group == 'experiment' else ''}{group}=own"
    )
