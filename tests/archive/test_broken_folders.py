"""Folders of runs that somebody or something has damaged: read as far as they can be, and told."""

import json
import math
import random
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from normlab.archive import study as study_module
from normlab.archive import tags
from normlab.archive.lock import lock_run
from normlab.archive.record import RunRecord, read_result
from normlab.archive.study import read_run, read_study
from normlab.errors import NormlabError

STEPS = 10


def record(state: Any = "finished", **changes: Any) -> RunRecord:
    config = {"trainer": {"max_steps": STEPS}}
    known: dict[str, Any] = {"name": "run", "step": STEPS, **changes}
    return RunRecord(
        id="0", norm="rmsnorm", placement="pre", data="synthetic", seed=0,
        choices={"norm": "rmsnorm"}, config=config, state=state, **known,
    )  # fmt: skip


def make(folder: Path, written: RunRecord, train: int = STEPS, val: int = STEPS) -> Path:
    """A run with so many training losses, and a last validation loss at step `val`."""
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("record", f"```json\n{json.dumps(asdict(written))}\n```")
        for step in range(train):
            writer.add_scalar(tags.TRAIN_LOSS, 3.0 - step / 10, step)
        for step in {0, val}:
            writer.add_scalar(tags.VALIDATION_LOSS, 3.0 - step / 10, step)
        if val == STEPS:
            last = math.nan if written.state == "diverged" else 2.0
            writer.add_scalar(tags.FINAL_VALIDATION_LOSS, last, val)
    written.write(folder)
    return folder


def events_of(folder: Path) -> Path:
    (only,) = folder.glob("events*")
    return only


@pytest.mark.parametrize("state", ["finished", "diverged", "failed", "interrupted", "running"])
def test_a_run_with_all_its_losses_is_whole(state: str, tmp_path: Path) -> None:
    run = read_run(make(tmp_path / "run", record(state)))
    assert run.complete
    assert run.left_out == []


@pytest.mark.parametrize("state", ["finished", "diverged", "failed", "interrupted"])
def test_a_curve_that_lacks_a_step_is_not_whole_and_told(state: str, tmp_path: Path) -> None:
    run = read_run(make(tmp_path / "run", record(state), train=STEPS - 1))
    assert not run.complete
    (sentence,) = run.left_out
    assert f"{STEPS - 1} of {STEPS} training losses" in sentence


def test_a_finished_run_without_its_last_validation_is_not_whole(tmp_path: Path) -> None:
    run = read_run(make(tmp_path / "run", record(), val=STEPS - 5))
    assert not run.complete
    assert "not the last validation loss" in run.left_out[0]


def test_a_diverged_run_is_whole_up_to_its_divergence(tmp_path: Path) -> None:
    diverged = record("diverged", diverged_step=4, step=6)
    assert read_run(make(tmp_path / "whole", diverged, train=4)).complete
    assert not read_run(make(tmp_path / "short", diverged, train=3)).complete


def test_a_run_being_written_may_end_in_half_a_record_and_a_finished_one_may_not(
    tmp_path: Path,
) -> None:
    for state, whole in (("running", True), ("finished", False), ("interrupted", False)):
        run = make(tmp_path / state, record(state), train=STEPS + 1)
        events_of(run).write_bytes(events_of(run).read_bytes()[:-3])
        found = read_run(run)
        assert found.complete == whole
        assert bool(found.left_out) != whole


def test_a_run_may_go_on_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path / "run", record("running"), train=3, val=0)
    read = study_module.read_events

    def finishing(folder: Path, *how: Any) -> Any:
        found = read(folder, *how)
        record("finished").write(folder)
        return found

    monkeypatch.setattr(study_module, "read_events", finishing)
    found = read_run(run)
    assert (found.record.state, found.left_out) == ("running", [])


def test_a_run_that_ends_while_it_is_read_was_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path / "run", record("running"), train=3, val=0)
    with lock_run(tmp_path, "0"):
        assert read_run(run).record.state == "running"
    assert read_run(run).record.state == "interrupted"
    read = study_module.read_events

    def finishing(folder: Path, *how: Any) -> Any:
        found = read(folder, *how)
        make(run, record("finished"))
        return found

    monkeypatch.setattr(study_module, "read_events", finishing)
    assert read_run(run).record.state == "finished"


def test_a_run_that_was_not_closed_is_not_rebuilt_as_finished(tmp_path: Path) -> None:
    """As one that failed after its last step, because its model sees later tokens."""
    run = make(tmp_path / "run", record("failed"))
    (run / "run.json").unlink()
    events_of(run).unlink()
    with SummaryWriter(str(run)) as writer:
        writer.add_text("record", f"```json\n{json.dumps(asdict(record('running')))}\n```")
        for step in range(STEPS + 1):
            writer.add_scalar(tags.TRAIN_LOSS, 2.0, step)
        writer.add_scalar(tags.VALIDATION_LOSS, 2.0, STEPS)
    found = read_run(run).record
    assert found.state != "finished"
    assert found.final.val_loss is None


def test_a_rebuilt_run_that_is_not_whole_claims_no_final_loss(tmp_path: Path) -> None:
    sound, damaged = (make(tmp_path / name, record()) for name in ("sound", "damaged"))
    (sound / "run.json").unlink()
    (damaged / "run.json").unlink()
    data = bytearray(events_of(damaged).read_bytes())
    data[-60] ^= 1
    events_of(damaged).write_bytes(data)
    assert read_run(sound).record.final.val_loss == 2.0
    found = read_run(damaged)
    assert (found.record.final.val_loss, found.record.best.val_loss) == (None, None)
    assert "without its final and best losses" in found.left_out[-1]


CHANGES: dict[str, Any] = {
    "final": {"val_loss": "2.0", "train_loss": None},
    "best": None,
    "step": None,
    "state": "asleep",
    "norm": 3,
    "choices": [],
    "config": None,
    "floor": True,
    "parameters": 1.5,
    "tokens_per_second": "fast",
    "seed": {},
    "versions": {"torch": 2},
    "train_seconds": 10**400,
    "name": "\ud800",
    "schema_version": 2,
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_value_of_another_type_does_not_get_into_a_table(key: str, tmp_path: Path) -> None:
    run = make(tmp_path / "study" / "run", record())
    raw = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(raw | {key: CHANGES[key]}))
    with pytest.raises(NormlabError, match=r"run\.json is damaged"):
        RunRecord.read(run)
    study = read_study(run.parent)
    assert study.runs[0].record.state == "finished"
    (sentence,) = study.left_out
    assert "is unreadable" in sentence
    assert "rebuilt" in sentence


@pytest.mark.parametrize("text", ["[" * 100_000, '{"step": NaN}', "null", "3", '"text"', "\x00"])
def test_what_is_no_record_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(NormlabError) as caught:
        RunRecord.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_older_record_without_newer_keys_and_a_newer_one_with_more_are_read(
    tmp_path: Path,
) -> None:
    record("interrupted").write(tmp_path)
    raw = json.loads((tmp_path / "run.json").read_text())
    del raw["floor"], raw["best"]["step"], raw["checksum"]
    raw["mood"] = "good"
    raw["checksum"] = zlib.crc32(json.dumps(raw).encode())
    (tmp_path / "run.json").write_text(json.dumps(raw))
    assert RunRecord.read(tmp_path) == record("interrupted")


def test_a_record_that_leaves_its_checksum_out_is_not_believed(tmp_path: Path) -> None:
    run = make(tmp_path / "study" / "run", record(), train=4, val=4)
    raw = json.loads((run / "run.json").read_text())
    del raw["checksum"]
    (run / "run.json").write_text(json.dumps(raw))
    with pytest.raises(NormlabError, match=r"it has no checksum\); the command .* trains it again"):
        RunRecord.read(run)
    assert read_result(run) is None
    (rebuilt,) = read_study(run.parent).runs
    assert (rebuilt.record.state, rebuilt.record.step) == ("running", 4)
    assert "unreadable (it has no checksum): the run was rebuilt" in rebuilt.left_out[-1]


def test_whatever_happens_to_run_json_the_study_is_read(tmp_path: Path) -> None:
    run = make(tmp_path / "study" / "run", record())
    sound = (run / "run.json").read_bytes()
    dice = random.Random(0)
    for _ in range(150):
        damaged = bytearray(sound)
        for _ in range(dice.randint(1, 3)):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        (run / "run.json").write_bytes(damaged[: dice.choice([None, dice.randrange(len(damaged))])])
        assert len(read_study(run.parent).runs) == 1


def test_what_is_no_run_does_not_disturb(tmp_path: Path) -> None:
    make(tmp_path / "run", record())
    (tmp_path / "run" / "config.yaml").unlink(missing_ok=True)
    (tmp_path / "figures").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "nowhere")
    (tmp_path / "runs.csv").write_text("")
    study = read_study(tmp_path)
    assert [run.folder.name for run in study.runs] == ["run"]
    assert study.left_out == []


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "I/O error")]
)
def test_a_folder_that_cannot_be_listed_is_told(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "run", record())
    (tmp_path / "closed").mkdir()
    listed = study_module.os.listdir

    def refusing(path: Path) -> list[str]:
        if Path(path).name == "closed":
            raise error
        return listed(path)

    monkeypatch.setattr(study_module.os, "listdir", refusing)
    study = read_study(tmp_path)
    assert len(study.runs) == 1
    assert "closed was left out" in study.left_out[0]
    assert not study_module.is_run_folder(tmp_path / "closed")


def test_a_record_that_may_not_be_read_is_rebuilt(tmp_path: Path) -> None:
    run = make(tmp_path / "run", record())
    (run / "run.json").unlink()
    (run / "run.json").mkdir()
    assert "unreadable (Is a directory)" in read_run(run).left_out[0]
