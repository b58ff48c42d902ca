"""Every example of docs/adding_a_norm.md is trained, from a folder outside the repository."""

import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import open_dict

from normlab.archive.record import RunRecord
from normlab.config.compose import composed_config
from normlab.config.specify import make_run_spec
from normlab.training.run import train
from tiny_run import TINY, SilentDisplay, keep_last

pytestmark = pytest.mark.usefixtures("without_figures")

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


def trained(mine: Path, *overrides: str) -> RunRecord:
    """The record of a run with these overrides and the options in `mine`."""
    own = (*overrides, f"output_dir={mine.parent / 'outputs'}")
    with composed_config(keep_last((*TINY, *own)), mine) as (_, composed):
        choices = dict(composed.hydra.runtime.choices)
        with open_dict(composed):
            del composed["hydra"]
        return train(make_run_spec(composed, choices), "the command", SilentDisplay())


def test_the_page_shows_the_three_ways_and_a_placement() -> None:
    targets = "".join(content for *_, content in FILES)
    for way in ("normlab.norms.RMSNorm", "torch.nn.", "x_transformers.", "normlab.norms.Formula"):
        assert f"_target_: {way}" in targets
    assert [kind for _, kind, _, _ in FILES].count("placement") == 1


# Data of which a little can be learned in 60 steps.
LEARNABLE = (
    *("model.depth=3", "data.batch_size=16", "data.concentration=0.05", "optimizer.lr=1e-2"),
    *("trainer.max_steps=60", "trainer.val_every=60"),
)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for _, kind, name, _ in FILES])
def test_every_file_of_the_page_trains(kind: str, name: str, mine: Path) -> None:
    record = trained(mine, f"{kind}={name}", *LEARNABLE)
    assert record.state == "finished"
    assert getattr(record, kind) == name
    assert record.final.val_loss is not None
    assert record.final.val_loss < 2.0 < math.log(8)  # the loss of a model that knows nothing


def test_a_file_of_the_page_is_trained_by_train_py(train_py: Callable, mine: Path) -> None:
    outputs = mine.parent / "outputs"
    own = (*TINY, "norm=x_scalenorm", f"output_dir={outputs}")
    answer = train_py("--config-dir", str(mine), *own)
    assert answer.code == 0, answer.err
    (run,) = outputs.glob("*/*/run.json")
    record = json.loads(run.read_text())
    assert (record["state"], record["norm"]) == ("finished", "x_scalenorm")


@pytest.mark.parametrize(
    "command", re.findall(r"^python train\.py (\+.*)$", PAGE.read_text(), re.M)
)
def test_every_switch_of_the_page_trains(command: str, mine: Path) -> None:
    assert trained(mine, *shlex.split(command)).state == "finished"


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
