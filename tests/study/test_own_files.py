"""Every example of docs/adding_a_norm.md is run with train.py, from outside the repository."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny_run import TINY

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_norm.md"
FILES = re.findall(r"```yaml\n# mine/((\w+)/(\w+)\.yaml)\n(.*?)```", PAGE.read_text(), re.DOTALL)


TRUSTED = re.findall(r"^(?:\w+=\S+ )*NORMLAB_TRUST=(\S+) python", PAGE.read_text(), re.M)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `mine` of the page, with all its files, and what it says to trust."""
    monkeypatch.setenv("NORMLAB_TRUST", ",".join(TRUSTED))
    for name, _, _, content in FILES:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "mine"


def trained(train_py: Callable, mine: Path, *overrides: str) -> dict:
    outputs = mine.parent / "outputs"
    answer = train_py("--config-dir", str(mine), *TINY, f"output_dir={outputs}", *overrides)
    assert answer.code == 0, answer.err
    (run,) = outputs.glob("*/*/run.json")
    return json.loads(run.read_text())  # type: ignore[no-any-return]


def test_the_page_shows_the_three_ways_and_a_placement() -> None:
    targets = "".join(content for *_, content in FILES)
    for way in ("normlab.norms.RMSNorm", "torch.nn.", "x_transformers.", "normlab.norms.Formula"):
        assert f"_target_: {way}" in targets
    assert [kind for _, kind, _, _ in FILES].count("placement") == 1


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for _, kind, name, _ in FILES])
def test_every_file_of_the_page_trains(
    kind: str, name: str, train_py: Callable, mine: Path
) -> None:
    record = trained(train_py, mine, f"{kind}={name}", "model.depth=3")
    assert record["state"] == "finished"
    assert record[kind] == name
    assert record["final"]["val_loss"] < 2.2


@pytest.mark.parametrize(
    "command", re.findall(r"^python train\.py (\+.*)$", PAGE.read_text(), re.M)
)
def test_every_switch_of_the_page_trains(command: str, train_py: Callable, mine: Path) -> None:
    import shlex

    assert trained(train_py, mine, *shlex.split(command))["state"] == "finished"


def test_a_folder_in_the_place_of_a_result_is_said_before_anything_trains(
    train_py: Callable, tmp_path: Path
) -> None:
    study = tmp_path / "synthetic"
    (study / "runs.csv").mkdir(parents=True)
    for arguments in (["-m", "seed=0,1"], []):
        answer = train_py(*arguments, *TINY, f"output_dir={tmp_path}")
        assert answer.code == 1
        assert answer.err.startswith(f"normlab: {study}/runs.csv is a folder, and the study has a")
        assert answer.err.count("\n") == 1
    assert list(study.iterdir()) == [study / "runs.csv"]
