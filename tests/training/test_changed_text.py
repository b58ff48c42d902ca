"""A run never goes on with another text than it began with, whatever is left of its record."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.training.checkpoints import latest_state, read_checkpoint
from normlab.training.run import train
from tiny_run import TINY, InterruptingDisplay, SilentDisplay

TEXT = "the quick brown {} jumps over the lazy dog. " * 40


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(TEXT.format(*["fox"] * 40))
    return path


@pytest.fixture
def stopped(
    text: Path, specified: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunSpec:
    """A run that was interrupted between two steps."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = [word for word in TINY if "validation_windows" not in word]
    spec: RunSpec = specified(*tiny, "data=text", f"data.path={text}", f"output_dir={tmp_path}/o")
    with pytest.raises(KeyboardInterrupt):
        train(spec, "the command", InterruptingDisplay(2))
    return spec


def change(text: Path) -> None:
    """The same characters, so that nothing else would notice."""
    text.write_text(TEXT.format(*["xof"] * 40))


@pytest.mark.parametrize("record", ["sound", "damaged", "gone"])
def test_a_text_that_has_changed_is_refused(record: str, text: Path, stopped: RunSpec) -> None:
    path = stopped.folder / "run.json"
    if record == "damaged":
        path.write_text(path.read_text()[:200])
    elif record == "gone":
        path.unlink()
    change(text)
    for _ in range(2):  # the same command again is no way around it
        failed = train(stopped, "the command", SilentDisplay())
        assert failed.state == "failed"
        assert "trained on another text than the one that is now at" in (failed.reason or "")


def test_the_same_text_is_gone_on_with_though_the_record_is_damaged(stopped: RunSpec) -> None:
    (stopped.folder / "run.json").write_text("{")
    ended = train(stopped, "the command", SilentDisplay())
    assert ended.state == "finished"
    assert ended.resumed_at
    assert ended.data_digest == RunRecord.read(stopped.folder).data_digest is not None


def test_a_state_that_does_not_tell_its_text_is_still_gone_on_from(stopped: RunSpec) -> None:
    path = stopped.folder / "checkpoints" / "last.ckpt"
    older = read_checkpoint(path)
    del older["data"]
    torch.save(older, path)
    saved, left_out = latest_state(stopped.folder, stopped.id)
    assert saved is not None
    assert (saved.plain.data, left_out) == (None, [])
    assert train(stopped, "the command", SilentDisplay()).resumed_at == [saved.step]
