"""The files beside run.json: damage to them changes no number, and is told all the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from normlab.archive import tags
from normlab.archive.record import RunRecord, describe_folder_changes, write_run_file
from normlab.archive.study import read_run, read_study

TEXTS = {"config.yaml": "seed: 0\nname: Übung\n", "vocabulary.json": '{"symbols": ["a", "σ"]}'}
CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/best.ckpt")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of one step, as it ended."""
    folder = tmp_path / "study" / "run"
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar(tags.TRAIN_LOSS, 3.0, 0)
        writer.add_scalar(tags.VALIDATION_LOSS, 2.5, 1)
    record = RunRecord(
        id="0", name="run", norm="rmsnorm", placement="pre", data="synthetic", seed=0,
        choices={}, config={}, step=1,
    )  # fmt: skip
    for name, text in TEXTS.items():
        write_run_file(folder, record, name, text)
    for name in CHECKPOINTS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"weights")
    record.state = "finished"
    record.write(folder)
    return folder


def test_what_was_written_is_there_and_nothing_is_told(run: Path) -> None:
    assert {name: (run / name).read_text(encoding="utf-8") for name in TEXTS} == TEXTS
    assert read_study(run.parent).left_out == []
    assert describe_folder_changes(run) == ""


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("bit", [0, 40, 100])
def test_any_flipped_bit_is_told_and_the_curves_stay_whole(name: str, bit: int, run: Path) -> None:
    content = bytearray((run / name).read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    (run / name).write_bytes(bytes(content))
    assert read_run(run).complete
    (sentence,) = read_study(run.parent).left_out
    assert sentence.startswith(f"{run}: {name} is not what the run wrote; ")
    assert describe_folder_changes(run) == sentence


@pytest.mark.parametrize("name", [*TEXTS, *CHECKPOINTS])
def test_what_is_missing_is_told(name: str, run: Path) -> None:
    (run / name).unlink()
    assert f"{run}: {name} is missing; " in read_study(run.parent).left_out[0]


def test_all_of_a_run_is_one_sentence(run: Path) -> None:
    for name in CHECKPOINTS:
        (run / name).unlink()
    (run / "config.yaml").unlink()
    (run / "config.yaml").mkdir()
    (sentence,) = read_study(run.parent).left_out
    directory = "config.yaml cannot be read (Is a directory)"
    assert f"{directory}, checkpoints/last.ckpt is missing" in sentence
    assert "checkpoints/best.ckpt is missing" in sentence


def test_what_is_missing_of_many_runs_is_one_sentence(run: Path) -> None:
    for number in (1, 2):
        other = shutil.copytree(run, run.parent / f"other{number}")
        record = RunRecord.read(other)
        record.name = other.name
        record.write(other)
    for name in CHECKPOINTS:
        for path in run.parent.glob(f"*/{name}"):
            path.unlink()
    (run.parent / "other1" / "config.yaml").unlink()
    both = "checkpoints/last.ckpt is missing, checkpoints/best.ckpt is missing"
    left_out = read_study(run.parent).left_out
    assert [sentence.partition(";")[0] for sentence in left_out] == [
        f"{run.parent / 'other1'}: config.yaml is missing, {both}",
        f"{run.parent / 'other2'} and 1 more of its study: {both}",
    ]


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_that_goes_on_writes_them_anew_and_is_not_reproached(state: Any, run: Path) -> None:
    record = RunRecord.read(run)
    record.state = state
    record.write(run)
    (run / "config.yaml").write_text("")
    assert read_study(run.parent).left_out == []


def test_a_record_without_digests_is_read_as_before(run: Path) -> None:
    record = RunRecord.read(run)
    record.files = {}
    record.write(run)
    for name in (*TEXTS, *CHECKPOINTS):
        (run / name).unlink()
    assert read_study(run.parent).left_out == []
