"""scripts/bench/gpu.py: every row can be measured, and the table keeps what was measured before."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import gpu
from normlab.errors import NormlabError
from normlab.norms.timing import build_gradient_call
from tiny_run import TINY

SMALL = gpu.Size(
    device="cpu",
    overrides=TINY,
    study=("optimizer.lr=1e-3,3e-3",),
    stack=3,
    steps=2,
    shapes=((16, 16),),
    norms=2,
    compiles=False,
)
PAGE = "# Page\n<!-- gpu table -->\nold\n<!-- end -->\nafter\n"


def store_nothing(row: dict[int, str]) -> None:
    """For tests of the results alone."""


def test_each_row_in_this_process_gives_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    results = gpu.measure_rows(SMALL, [2, 4, 6, 7], 1e9, store_nothing)
    assert "3 runs; no graph: there are no CUDA graphs on cpu" in results[2]
    assert "1 run;" in results[4]
    assert results[6].count("16×16") == 2
    assert "of the copy limit" in results[7]


@pytest.mark.slow
def test_each_row_that_starts_a_study_counts_its_runs() -> None:
    results = gpu.measure_rows(SMALL, [1, 5], 1e9, store_nothing)
    assert results[1].endswith(" s")
    assert results[5].endswith("(8 runs)")


def test_a_row_that_fails_or_has_no_time_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(size: gpu.Size) -> str:
        raise RuntimeError("a | b")

    monkeypatch.setattr(gpu, "ROWS", (gpu.Row("first", "1", fail), gpu.ROWS[1]))
    stored: list[dict[int, str]] = []
    failed, late = {1: "open: failed (RuntimeError: a / b)"}, {2: "open: no time was left"}
    assert gpu.measure_rows(SMALL, [1], 1e9, stored.append) == failed
    assert gpu.measure_rows(SMALL, [2], -1, stored.append) == late
    assert stored == [failed, late]


def test_each_result_is_stored_before_the_next_row(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[dict[int, str]] = []

    def stop(size: gpu.Size) -> str:
        assert stored == [{1: "7"}]
        raise KeyboardInterrupt

    rows = (gpu.Row("first", "1", lambda size: "7"), gpu.Row("second", "1", stop))
    monkeypatch.setattr(gpu, "ROWS", rows)
    with pytest.raises(KeyboardInterrupt):
        gpu.measure_rows(SMALL, [1, 2], 1e9, stored.append)
    assert stored == [{1: "7"}]


def test_each_row_leaves_the_memory_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.append("empty"))

    def measure(size: gpu.Size) -> str:
        events.append("row")
        return "7"

    monkeypatch.setattr(gpu, "ROWS", (gpu.Row("first", "1", measure),) * 2)
    gpu.measure_rows(SMALL, [1, 2], 1e9, store_nothing)
    assert events == ["row", "empty"] * 2


def test_a_study_that_fails_says_why() -> None:
    with pytest.raises(NormlabError, match=r"^the study ended with code 2: .*norm=no_such"):
        gpu.run_study("norm=no_such")


def test_a_recipe_that_diverges_is_an_open_row(monkeypatch: pytest.MonkeyPatch) -> None:
    record = SimpleNamespace(
        best=SimpleNamespace(val_loss=None), reason="the loss of step 0 is nan", tokens_per_second=1
    )
    monkeypatch.setattr(gpu, "run_study", lambda *_: (1.0, [SimpleNamespace(record=record)]))
    results = gpu.measure_rows(SMALL, [8], 1e9, store_nothing)
    reason = "the run has no validation loss: the loss of step 0 is nan"
    assert results[8] == f"open: failed (NormlabError: {reason})"


def test_timing_a_norm_leaves_no_gradients() -> None:
    """Gradients that are added to those of the call before would be read and written again."""
    x = torch.randn(4, 8, requires_grad=True)
    norm = nn.LayerNorm(8)
    call = build_gradient_call(norm, [x, *norm.parameters()], x, torch.randn(4, 8))
    assert gpu.time_call(call) > 0
    assert x.grad is None
    assert norm.weight.grad is None


def test_a_row_that_is_not_measured_again_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    gpu.write_table(page, "card A", {2: "5,000", 3: "9"})
    gpu.write_table(page, "card B", {3: "13,000"})
    text = page.read_text()
    assert "old" not in text
    assert text.endswith("<!-- end -->\nafter\n")
    rows = [line for line in text.splitlines() if line[:3] in ("| 1", "| 2", "| 3")]
    assert rows[0].endswith("| open | – |")
    assert "| 5,000 | card A, torch " in rows[1]
    assert "| 13,000 | card B, torch " in rows[2]


@pytest.mark.skipif(bool(os.environ.get("CUDA_VISIBLE_DEVICES")), reason="a GPU may be here")
def test_without_a_gpu_it_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        gpu.main([])
    assert end.value.code == 2
    assert "no NVIDIA GPU can be used here" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu.main(["--rows", "9"])
    assert "--rows 9 is not a row number; rows are numbers from 1 to 8." in capsys.readouterr().err
