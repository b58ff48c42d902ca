"""Whether two runs are one: to the bit, whatever happened to either on its way."""

from pathlib import Path
from typing import Any

import torch

from normlab.archive import tags
from normlab.archive.events import read_events
from normlab.archive.record import RunRecord
from normlab.training.checkpoints import read_checkpoint

CURVES = (
    *(tags.TRAIN_LOSS, tags.VALIDATION_LOSS, tags.BEST_VALIDATION_LOSS),
    *(tags.LEARNING_RATE, tags.GRADIENT_NORM),
)


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    scalars = read_events(folder).scalars
    return {
        tag: list(zip(scalars[tag].steps.tolist(), scalars[tag].values.tolist(), strict=True))
        for tag in CURVES
    }


def list_all_steps(folder: Path) -> dict[str, list[int]]:
    """The steps of all points by tag, as they stand in the files, doubled ones too."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("events.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def list_steps(folder: Path, tag: str) -> list[int]:
    return list_all_steps(folder).get(tag, [])


def assert_same_run(one: Path, other: Path) -> None:
    assert read_curves(one) == read_curves(other)
    ours, theirs = list_all_steps(one), list_all_steps(other)
    for tag in CURVES:  # none doubled, none missing, and in order, as TensorBoard reads them
        assert ours.get(tag) == theirs.get(tag)
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (read_checkpoint(folder / "checkpoints" / name) for folder in (one, other))
        keys = ["state_dict", "step"]
        if name == "last.ckpt":
            keys += ["optimizer", "random"]
            assert_same_recorder(ours["recorder"], theirs["recorder"])
        for key in keys:
            assert_equal(ours[key], theirs[key])
    a, b = RunRecord.read(one), RunRecord.read(other)
    assert (a.state, a.step, a.final, a.best) == (b.state, b.step, b.final, b.best)


def assert_same_recorder(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """All that is the same in two runs of one configuration: not the times."""
    for key in ("above", "tokens", "losses", "norms"):
        assert_equal(ours[key], theirs[key])
    a, b = ({**state["progress"], "train_seconds": 0.0} for state in (ours, theirs))
    assert_equal(a, b)


def assert_equal(one: object, other: object) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)  # type: ignore[arg-type]
    elif isinstance(one, dict):
        assert one.keys() == other.keys()  # type: ignore[attr-defined]
        for key in one:
            assert_equal(one[key], other[key])  # type: ignore[index]
    elif isinstance(one, list):
        assert len(one) == len(other)  # type: ignore[arg-type]
        for mine, its in zip(one, other, strict=True):  # type: ignore[call-overload]
            assert_equal(mine, its)
    else:
        assert one == other
