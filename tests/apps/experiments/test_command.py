"""Experiments that train nothing, from the command line to their files and their sentences."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from html_page import Page
from normlab.analysis import plot
from normlab.apps.experiments import gradient_vanishing_measurement
from normlab.apps.experiments import main as measure
from normlab.apps.experiments.layernorm_vs_rmsnorm import LayerNormVsRmsNormSettings
from normlab.apps.experiments.record import read_record
from normlab.apps.experiments.report import Report, redraw_report

VANISHING = (
    "experiment=gradient_vanishing",
    "seed=0,1",
    "model.width=16",
    "model.depth=2",
    "norm=rmsnorm",
    "placement=pre",
    "trainer.threads=1",
)
COMPARISON = ("experiment=layernorm_vs_rmsnorm", "model.width=8,16", "trainer.threads=1")


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def never(*_: object, **__: object) -> None:
    raise AssertionError("measured again")


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("no compiler")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds, and no compiler."""
    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setitem(LayerNormVsRmsNormSettings.ROUNDS, "quick", 2)


@pytest.fixture
def without_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normlab.apps.experiments.report.draw_figure", lambda *_: [])


@pytest.mark.usefixtures("without_figure")
def test_a_key_with_two_signs_is_the_key(train_py: Callable, tmp_path: Path) -> None:
    words = [f"++{word}" if word[:5] in ("seed=", "model") else word for word in VANISHING]
    answer = train_py(*words, f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    settings = read_record(tmp_path / "gradient_vanishing-quick/gradient_vanishing.json").settings
    assert settings["seeds"] == [0, 1]
    assert "16 wide" in answer.out.splitlines()[-1]


def test_numbers_figure_and_paragraph_then_a_redraw(
    train_py: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    answer = train_py(*VANISHING, f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    folder = tmp_path / "gradient_vanishing-quick"
    figure = folder / "figures" / "gradient_vanishing.png"
    assert f"figure   {figure}" in answer.out
    assert figure.with_suffix(".svg").stat().st_size > 10_000
    json.loads((folder / "gradient_vanishing.json").read_text(), parse_constant=no_constant)
    found = read_record(folder / "gradient_vanishing.json")
    assert found.settings["seeds"] == [0, 1]
    assert found.settings["norms"]["rmsnorm"]["_target_"] == "normlab.norms.RMSNorm"
    assert found.origin.versions["torch"] == torch.__version__
    assert found.origin.machine["threads"] == 1
    assert "experiment=gradient_vanishing" in found.origin.command
    assert [one.norm for one in found.numbers.stacks] == ["none"] * 3 + ["rmsnorm"]
    assert found.numbers.deep.depth == 20
    assert "16 wide, with PyTorch's initialization" in answer.out.splitlines()[-1]

    figure.unlink()
    monkeypatch.setattr(gradient_vanishing_measurement, "profile_stacks", never)
    again = train_py(*VANISHING, f"output_dir={tmp_path}")
    assert again.code == 0, again.err
    assert "there" in again.out
    assert again.out.splitlines()[-1] == answer.out.splitlines()[-1]
    assert figure.stat().st_size > 10_000

    page = folder / "report.html"
    before = page.read_bytes()
    page.unlink()
    plot.main([str(folder)], redraw_measurement=redraw_report)
    redrawn = capfd.readouterr().out
    assert redrawn.splitlines()[-1] == answer.out.splitlines()[-1]
    assert f"report   {page}" in redrawn
    assert page.read_bytes() == before
    read = Page(page).root
    assert "linear and relu" in read.text.lower()
    assert "experiment=gradient_vanishing" in read.text
    (first, *_) = read.all("table")
    assert [row.text.split()[0] for row in first.all("tr")][-1] == "none"  # the deep stack


def test_other_settings_or_damage_measure_again(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "write_report", lambda *_: Report([], {}, []))
    where = f"output_dir={tmp_path}"
    assert train_py(*VANISHING, where).code == 0
    path = tmp_path / "gradient_vanishing-quick" / "gradient_vanishing.json"
    fewer = [word for word in VANISHING if word != "seed=0,1"]
    other = train_py(*fewer, "seed=3", where)
    assert other.code == 0, other.err
    assert "was measured with other settings (seeds)" in other.out
    assert read_record(path).settings["seeds"] == [3]
    path.write_text(path.read_text()[:-90])
    damaged = train_py(*fewer, "seed=3", where)
    assert damaged.code == 0, damaged.err
    assert "is damaged" in damaged.out
    assert read_record(path).settings["seeds"] == [3]


@pytest.mark.usefixtures("without_figure")
def test_a_measurement_has_no_curves_to_draw(
    train_py: Callable, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert train_py(*VANISHING, f"output_dir={tmp_path}").code == 0
    with pytest.raises(SystemExit) as left:
        plot.main(
            [str(tmp_path / "gradient_vanishing-quick"), "--metric", "train/loss"],
            redraw_measurement=redraw_report,
        )
    assert left.value.code == 1
    assert "holds a measurement and no curves" in capfd.readouterr().err


@pytest.mark.usefixtures("quick")
def test_layernorm_against_rmsnorm(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py(*COMPARISON, f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    folder = tmp_path / "layernorm_vs_rmsnorm-quick"
    found = read_record(folder / "layernorm_vs_rmsnorm.json")
    assert found.settings["shapes"] == [[1024, 8], [1024, 16]]
    assert found.numbers.parameters == {"layernorm": 32, "rmsnorm": 16}
    assert (folder / "figures" / "layernorm_vs_rmsnorm.svg").stat().st_size > 10_000
    assert "not comparable" in answer.out  # of two rounds nothing can be said
    tables = list(Page(folder / "report.html").root.all("table"))
    assert len(tables) == 3
    assert "over F.layer_norm" in tables[0].text
    assert "with torch.compile: not timed" in answer.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["norm=rmsnrom"], "rmsnrom"),
        (["trainer.max_steps=5"], "trainer.max_steps=5 means nothing to experiment=gradient"),
        (["optimizer.lr=1e-3"], "optimizer.lr=0.001 means nothing to experiment"),
        (["model.width=0"], "model.width=0 is not allowed; it must be a whole number from 1"),
        (["model.width=wide"], "model.width=wide is not allowed"),
        (["model.width=18"], "model.heads=4 does not divide model.width=18"),
        (["-m", "model.depth=2,4"], "model.depth=2,4 cannot be several"),
        (["-m", "norm.eps=1e-5,1e-6"], "norm.eps=1e-05,1e-06 cannot be several in experiment="),
        (["seed=-1"], "seed=-1 is not allowed"),
        (["budget=tiny"], "tiny"),
        (["placement=sideways"], "sideways"),
        (["norm.eps=small"], "norm.eps"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_one_sentence(
    words: list[str], sentence: str, train_py: Callable, tmp_path: Path
) -> None:
    keys = {"seed", *(word.split("=")[0] for word in words)}
    others = [word for word in VANISHING if word.split("=")[0] not in keys]
    answer = train_py(*others, *words, f"output_dir={tmp_path}")
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_norm_means_nothing_where_two_are_compared(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py(*COMPARISON, "norm=dyt", f"output_dir={tmp_path}")
    assert answer.code == 2
    assert "norm=dyt means nothing to experiment=layernorm_vs_rmsnorm" in answer.err


def test_a_norm_that_sees_other_tokens_is_refused(train_py: Callable, tmp_path: Path) -> None:
    own = tmp_path / "own" / "norm"
    own.mkdir(parents=True)
    (own / "over_tokens.yaml").write_text("_target_: torch.nn.BatchNorm1d\n")
    others = [word for word in VANISHING if not word.startswith("norm=")]
    where = f"output_dir={tmp_path / 'out'}"
    answer = train_py("--config-dir", str(tmp_path / "own"), *others, "norm=over_tokens", where)
    assert answer.code == 2
    assert "takes statistics over several tokens" in answer.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_before_anything(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setattr(gradient_vanishing_measurement, "profile_stacks", never)
    answer = train_py(*VANISHING, f"output_dir={tmp_path / 'out'}")
    assert answer.code == 1
    assert "cannot be written; give a place" in answer.err


def test_a_place_that_is_no_folder_is_told_before_anything(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").write_text("")
    monkeypatch.setattr(gradient_vanishing_measurement, "profile_stacks", never)
    answer = train_py(*VANISHING, f"output_dir={tmp_path / 'out'}")
    assert answer.code == 1
    assert "is not a folder; give a place" in answer.err


def test_a_disk_that_fills_up_is_one_sentence(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("normlab.archive.versioned_json.write_text", full)
    answer = train_py(*VANISHING, f"output_dir={tmp_path}")
    assert answer.code == 1
    assert "cannot be written (No space left on device)" in answer.err


def test_a_stop_says_what_the_same_command_does(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        gradient_vanishing_measurement,
        "profile_stacks",
        lambda *_, **__: os.kill(os.getpid(), signal.SIGINT),
    )
    answer = train_py(*VANISHING, f"output_dir={tmp_path}")
    assert answer.code == 130
    assert "the same command measures from the beginning" in answer.err


class EnoughError(Exception):
    """What was to be seen has been seen."""


@pytest.mark.parametrize(
    ("budget", "sizes"),
    [("quick", (1, 8, 60)), ("standard", (3, 16, 150)), ("full", (3, 32, 400))],
)
def test_each_budget_has_its_numbers_and_its_folder(
    budget: str,
    sizes: tuple[int, int, int],
    train_py: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def measured(settings: Any, *_: object) -> None:
        asked.append((len(settings.widths), settings.depth, len(settings.seeds)))
        raise EnoughError

    monkeypatch.setattr(gradient_vanishing_measurement, "measure", measured)
    words = ("norm=rmsnorm", "placement=pre", f"budget={budget}", f"output_dir={tmp_path}")
    with pytest.raises(EnoughError):
        train_py("experiment=gradient_vanishing", *words)
    assert asked == [sizes]
    assert [path.name for path in tmp_path.iterdir()] == [f"gradient_vanishing-{budget}"]


def test_measuring_is_in_no_runs_identity(specified: Callable) -> None:
    assert specified().id == specified("experiment=gradient_vanishing").id


def test_a_figure_that_fails_costs_a_sentence_and_not_the_report(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normlab.apps.experiments.report.draw_figure", broken)
    answer = train_py(*VANISHING, f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    sentence = "The figure could not be drawn (RuntimeError: no compiler); all else is there."
    assert f"note: {sentence}" in answer.out
    page = (tmp_path / "gradient_vanishing-quick" / "report.html").read_text()
    assert sentence in page
    assert "The numbers" in page
