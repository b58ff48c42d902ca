import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from normlab.archive import tags
from normlab.archive.record import FinalNumbers, RunRecord, read_result
from normlab.archive.study import read_run, read_study
from normlab.errors import NormlabError


def record(name: str = "rmsnorm-pre-s0", steps: int = 20, **changes: Any) -> RunRecord:
    return RunRecord(
        id="0", name=name, norm="rmsnorm", placement="pre", data="synthetic", seed=0,
        choices={"norm": "rmsnorm"}, config={"trainer": {"max_steps": steps}}, floor=1.43,
        **changes,
    )  # fmt: skip


def make(
    folder: Path,
    started: RunRecord | None,
    train: list[float],
    val: dict[int, float],
    closing: float | None = None,
) -> None:
    """Event files as a run leaves them: the record as text, losses, the final number."""
    with SummaryWriter(str(folder)) as writer:
        if started:
            text = json.dumps(asdict(started), indent=1)
            writer.add_text("record", f"```json\n{text}\n```")
        writer.add_scalar(tags.FINAL_VALIDATION_LOSS, math.nan, 0)
        for step, loss in enumerate(train):
            writer.add_scalar(tags.TRAIN_LOSS, loss, step)
        for step, loss in val.items():
            writer.add_scalar(tags.VALIDATION_LOSS, loss, step)
        if closing is not None:
            writer.add_scalar(tags.FINAL_VALIDATION_LOSS, closing, max(val))


def test_a_run_is_its_record_and_its_events(tmp_path: Path) -> None:
    make(tmp_path, None, [4.0, 3.0], {2: 2.5})
    record(steps=2, state="finished", step=2).write(tmp_path)
    run = read_run(tmp_path)
    assert run.record == record(steps=2, state="finished", step=2)
    assert run.events.scalars[tags.TRAIN_LOSS].values.tolist() == [4.0, 3.0]
    assert run.left_out == []


def test_the_halves_of_the_final_loss_are_those_of_the_events(tmp_path: Path) -> None:
    make(tmp_path, record(steps=2), [4.0, 3.0], {2: 2.5}, closing=2.5)
    with SummaryWriter(str(tmp_path), filename_suffix=".more") as writer:
        writer.add_scalar(tags.FINAL_SELECTION_LOSS, 2.25, 2)
        writer.add_scalar(tags.FINAL_TEST_LOSS, 2.75, 2)
    forged = FinalNumbers(val_loss=2.5, train_loss=3.0, selection_loss=2.25, test_loss=0.5)
    record(steps=2, state="finished", step=2, final=forged).write(tmp_path)
    run = read_run(tmp_path)
    assert (run.record.final.selection_loss, run.record.final.test_loss) == (2.25, 2.75)
    assert "final.test_loss=0.5" in run.left_out[0]
    (tmp_path / "run.json").unlink()
    rebuilt = read_run(tmp_path).record.final
    assert (rebuilt.val_loss, rebuilt.selection_loss, rebuilt.test_loss) == (2.5, 2.25, 2.75)


@pytest.mark.parametrize("lost", [False, True])
def test_the_mean_speed_is_over_steps_not_over_points(tmp_path: Path, lost: bool) -> None:
    make(tmp_path, record(steps=4), [4.0, 3.0, 2.0, 1.0], {4: 2.5}, closing=2.5)
    with SummaryWriter(str(tmp_path), filename_suffix=".more") as writer:
        # One step at 100 and three at 600.
        writer.add_scalar(tags.TOKENS_PER_SECOND, 100.0, 0)
        writer.add_scalar(tags.TOKENS_PER_SECOND, 600.0, 3)
    forged = record(steps=4, state="finished", step=4, tokens_per_second=5000.0)
    forged.write(tmp_path)
    if lost:
        (tmp_path / "run.json").unlink()
    assert read_run(tmp_path).record.tokens_per_second == pytest.approx(4 / (1 / 100 + 3 / 600))


@pytest.mark.parametrize("damage", [None, "", "{", '{"schema_version": 99}', "[]", '{"id": 1}'])
def test_a_lost_record_is_rebuilt_from_the_events(tmp_path: Path, damage: str | None) -> None:
    make(tmp_path, record(), [4.0] * 20, {10: 2.0, 15: 1.75, 20: 1.875}, closing=1.875)
    if damage is not None:
        (tmp_path / "run.json").write_text(damage)
    run = read_run(tmp_path)
    assert (run.record.norm, run.record.floor) == ("rmsnorm", 1.43)
    assert (run.record.state, run.record.step) == ("finished", 20)
    assert (run.record.best.val_loss, run.record.best.step) == (1.75, 15)
    assert (run.record.final.val_loss, run.record.final.train_loss) == (1.875, 4.0)
    (sentence,) = run.left_out
    assert "rebuilt" in sentence
    assert ("missing" if damage is None else "unreadable") in sentence


def test_a_rebuilt_run_with_a_loss_that_is_not_finite_has_diverged(tmp_path: Path) -> None:
    make(tmp_path, record(), [4.0, 5.0, math.nan, math.nan], {0: 4.0, 4: math.nan})
    found = read_run(tmp_path).record
    assert (found.state, found.diverged_step) == ("diverged", 2)
    assert (found.final.val_loss, found.best.val_loss, found.final.train_loss) == (None, 4.0, 5.0)


def test_a_rebuilt_run_that_closed_without_a_final_loss_has_diverged(tmp_path: Path) -> None:
    make(tmp_path, record(), [4.0, 9.0], {2: 9.0}, closing=math.nan)
    found = read_run(tmp_path).record
    assert (found.state, found.final.val_loss) == ("diverged", None)


def test_a_rebuilt_run_that_did_not_close_is_still_running(tmp_path: Path) -> None:
    make(tmp_path, record(), [4.0, 3.0], {0: 4.0})
    assert read_run(tmp_path).record.state == "running"


def test_a_run_that_says_finished_before_its_last_step_is_not_believed(tmp_path: Path) -> None:
    make(tmp_path, record(), [4.0], {0: 4.5, 1: 4.0}, closing=4.0)
    record(state="finished", step=1).write(tmp_path)
    assert read_result(tmp_path) is None
    run = read_run(tmp_path)
    assert run.record.state != "finished"
    assert "step 1 of 20" in run.left_out[0]


def test_a_run_that_nothing_describes_is_left_out_of_the_study_and_told(tmp_path: Path) -> None:
    make(tmp_path / "good", None, [4.0], {1: 3.0})
    record("good", steps=1, state="finished", step=1).write(tmp_path / "good")
    make(tmp_path / "bad", None, [4.0], {})
    (tmp_path / "figures").mkdir()
    study = read_study(tmp_path)
    assert [run.record.name for run in study.runs] == ["good"]
    (sentence,) = study.left_out
    assert str(tmp_path / "bad") in sentence


def test_runs_are_sorted_by_name_and_their_sentences_gathered(tmp_path: Path) -> None:
    for folder, name in (("1", "b"), ("2", "a")):
        record(name, state="finished", step=20).write(tmp_path / folder)
    study = read_study(tmp_path)
    assert [run.record.name for run in study.runs] == ["a", "b"]
    assert len(study.left_out) == 2
    assert "no curves" in study.left_out[0]


def test_a_copy_of_a_run_is_no_second_run_and_the_whole_one_counts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, None, [4.0], {1: 3.0}, closing=3.0)
        record(name, steps=1, state="finished", step=1).write(tmp_path / name)
        shutil.copytree(tmp_path / name, tmp_path / f"0-copy-of-{name}")
    for events in (tmp_path / "b").glob("events*"):
        events.unlink()
    study = read_study(tmp_path)
    assert [run.folder.name for run in study.runs] == ["a", "0-copy-of-b"]
    assert study.left_out == [
        f"{tmp_path / '0-copy-of-a'} was left out: it is a copy of the run {tmp_path / 'a'}.",
        f"{tmp_path / 'b'} was left out: it is a copy of the run {tmp_path / '0-copy-of-b'}.",
    ]


def test_events_that_end_before_the_record_are_told(tmp_path: Path) -> None:
    make(tmp_path, None, [4.0, 3.0], {2: 2.5})
    record(state="finished", step=20).write(tmp_path)
    (sentence,) = read_run(tmp_path).left_out
    assert "step 20" in sentence
    assert "end at step 2" in sentence


def refusal(folder: Path) -> str:
    with pytest.raises(NormlabError) as caught:
        read_study(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_what_is_no_study_is_refused_in_a_sentence_that_helps(tmp_path: Path) -> None:
    run = tmp_path / "mystudy" / "myrun"
    record().write(run)

    missing = refusal(tmp_path / "nothing")
    assert "There is no folder" in missing
    assert "one sub-folder for every run" in missing
    assert f"did you mean {run.parent}?" in refusal(tmp_path / "mystdy")
    assert "is a file" in refusal(run / "run.json")
    single = refusal(run)
    assert "single run" in single
    assert f"give {run.parent} instead" in single
    assert f"give one of {run.parent}" in refusal(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "holds no runs" in refusal(tmp_path / "empty")


def test_a_study_without_a_readable_run_is_refused_with_the_reasons(tmp_path: Path) -> None:
    make(tmp_path / "bad", None, [4.0], {})
    assert str(tmp_path / "bad") in refusal(tmp_path)
