"""A redraw with nothing new leaves the figures as they are; whatever is new is drawn."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

import normlab
from normlab.analysis import drawn, figures
from normlab.analysis.plot import report
from normlab.archive import tags
from normlab.archive.cache import CACHE_FOLDER
from normlab.archive.record import RunRecord


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were drawn into."""
    calls: list[Path] = []
    draw = figures.draw

    def counted(study: Any, folder: Path, failures: list[str]) -> list[Path]:
        calls.append(folder)
        return draw(study, folder, failures)

    monkeypatch.setattr(figures, "draw", counted)
    return calls


def contents(files: list[Path]) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in files}


def test_with_nothing_new_nothing_is_drawn(maker: Any, drawings: list[Path]) -> None:
    maker.run(steps=60)
    first = report(maker.folder)
    before = contents(first.figures)
    second = report(maker.folder)
    assert len(drawings) == 1
    assert second.figures == first.figures
    assert contents(second.figures) == before
    assert second.summaries == first.summaries
    assert second.left_out == first.left_out


def step_on(run: Path) -> None:
    with SummaryWriter(str(run)) as writer:
        writer.add_scalar(tags.TRAIN_LOSS, 1.0, 61)


def rename_norm(run: Path) -> None:
    record = RunRecord.read(run)
    record.norm = "layernorm"
    record.write(run)


def lose_record(run: Path) -> None:
    (run / "run.json").unlink()


def figure(run: Path) -> Path:
    return run.parent / "figures" / "comparison.svg"


CHANGES: dict[str, Callable[[Path], object]] = {
    "a step more": step_on,
    "another record": rename_norm,
    "a lost figure": lambda run: figure(run).unlink(),
    "a figure of somebody else": lambda run: figure(run).write_text("mine"),
    "a lost report": lambda run: (run.parent / "report.html").unlink(),
    "a report of somebody else": lambda run: (run.parent / "report.html").write_text("mine"),
    "a damaged note": lambda run: (run.parent / CACHE_FOLDER / "figures.json").write_text("{"),
    "a note of something else": lambda run: (run.parent / CACHE_FOLDER / "figures.json").write_text(
        json.dumps({"files": {}})
    ),
    "a lost cache": lambda run: (run.parent / CACHE_FOLDER / "figures.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_is_new_is_drawn(
    change: Callable[[Path], object], maker: Any, drawings: list[Path]
) -> None:
    run = maker.folder / maker.run(steps=60).name
    report(maker.folder)
    change(run)
    files = report(maker.folder).figures
    assert len(drawings) == 2
    assert len(files) == 8
    assert all(path.stat().st_size > 1000 for path in files)


def test_other_code_draws_again(
    maker: Any, drawings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.run(steps=60)
    report(maker.folder)
    monkeypatch.setattr(drawn, "version", lambda name: "another")
    report(maker.folder)
    assert len(drawings) == 2


def test_a_study_that_cannot_remember_is_drawn_every_time(maker: Any, drawings: list[Path]) -> None:
    maker.run(steps=60)
    (maker.folder / CACHE_FOLDER).write_text("in the way")
    report(maker.folder)
    report(maker.folder)
    assert len(drawings) == 2


def test_a_redraw_with_nothing_new_imports_nothing_heavy(maker: Any) -> None:
    maker.run(steps=60)
    report(maker.folder)
    code = (
        "import sys; from normlab.analysis.plot import main; "
        f"main([{str(maker.folder)!r}]); "
        "heavy = {'torch', 'matplotlib', 'scipy', 'tensorboard', 'google.protobuf', 'jinja2'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    source = Path(normlab.__path__[0]).parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(source), "PATH": "", "HOME": str(Path.home())},
        check=False,
    )
    assert done.returncode == 0, done.stderr
