"""The sentence: four runs, one comparison, nothing trained twice, nothing lost when one fails."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normlab.archive.lock import lock_run
from normlab.archive.record import RunRecord
from normlab.study import sweep, workers
from normlab.study.plan import Plan
from tiny_run import TINY

SENTENCE = ("-m", "norm=rmsnorm,layernorm", "placement=pre,post")


def records(study: Path) -> list[RunRecord]:
    return [RunRecord.read(path.parent) for path in sorted(study.glob("*/run.json"))]


def test_the_sentence_trains_four_runs_and_compares_them(
    train_py: Callable, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    answer = train_py(*SENTENCE, *TINY, f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    study = tmp_path / "synthetic"
    assert {(r.norm, r.placement, r.state) for r in records(study)} == {
        (norm, placement, "finished")
        for norm in ("rmsnorm", "layernorm")
        for placement in ("pre", "post")
    }
    with (study / "runs.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 4
    for figure in ("training_loss", "validation_loss", "final_validation_loss", "comparison"):
        assert (study / "figures" / f"{figure}.png").stat().st_size > 10_000
        assert (study / "figures" / f"{figure}.svg").stat().st_size > 10_000
    assert "4 runs" in answer.out
    assert "norm = rmsnorm, layernorm" in answer.out
    assert str(study / "figures") in answer.out
    for arm in ("rmsnorm · pre", "layernorm · post"):
        assert arm in answer.out

    request.getfixturevalue("without_figures")
    again = train_py(*SENTENCE, *TINY, f"output_dir={tmp_path}")
    assert again.code == 0
    assert "4 already there, 0 to train" in again.out

    more = train_py("-m", "seed=0,1", *TINY, f"output_dir={tmp_path}")
    assert "1 already there, 1 to train" in more.out
    assert len(records(study)) == 5


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_another_process_ends_while_tables_are_drawn_is_said_to_be_missing(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("-m", "norm=rmsnorm,layernorm", "hydra/launcher=basic", *TINY)
    one = ("norm=layernorm", *words[2:])
    assert train_py(*one, f"output_dir={tmp_path / 'other'}").code == 0
    (other,) = (tmp_path / "other/synthetic").glob("layernorm-*")
    study, draw = tmp_path / "here/synthetic", sweep.draw_study

    def end_run_and_draw(*arguments: Any) -> str:
        problem = draw(*arguments)
        shutil.copytree(other, study / other.name)
        return problem

    monkeypatch.setattr(sweep, "draw_study", end_run_and_draw)
    with lock_run(study, RunRecord.read(other).id):
        answer = train_py(*words, f"output_dir={tmp_path / 'here'}")
    assert answer.code == 1
    assert "1 of 2 runs are not there yet, for another process trains them: " in answer.err
    assert f"tables and figures are without {other.name}; " in answer.err


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_another_process_ends_meanwhile_stops_nothing(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pending, calls = Plan.pending, []

    def pending(plan: Plan) -> list:
        calls.append(None)
        return read_pending(plan)[len(calls) - 1 :]  # each time one more is there

    monkeypatch.setattr(Plan, "pending", pending)
    answer = train_py("-m", "seed=0,1", *TINY, f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    assert [r.state for r in records(tmp_path / "synthetic")] == ["finished"] * 2


# Keeps its promises when it is tried, and fails once it is trained.
BROKEN = """
import torch

class Broken(torch.nn.Module):
    def __init__(self, width):
        super().__init__()

    def forward(self, x):
        if torch.is_grad_enabled() and x.shape[:2] == (4, 16):  # of a batch of TINY
            raise RuntimeError("no gradient, please")
        return x
"""


def test_a_run_that_fails_leaves_the_others_and_the_figures(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / "norm"
    own.mkdir(parents=True)
    (tmp_path / "broken_norms.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NORMLAB_TRUST", "broken_norms")
    (own / "broken.yaml").write_text("# fails\n_target_: broken_norms.Broken\n")
    answer = train_py(
        "--config-dir",
        str(own.parent),
        "-m",
        "norm=rmsnorm,broken",
        *TINY,
        f"output_dir={tmp_path}",
    )
    study = tmp_path / "synthetic"
    assert answer.code == 1
    assert {r.norm: r.state for r in records(study)} == {"rmsnorm": "finished", "broken": "failed"}
    assert "1 of 2 runs did not finish" in answer.err
    assert "broken-pre" in answer.err
    assert "Traceback" not in answer.err
    assert (study / "figures" / "comparison.png").is_file()


@pytest.mark.usefixtures("without_figures")
def test_without_a_norm_two_placements_are_one_run(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py("-m", "norm=none", "placement=pre,post", *TINY, f"output_dir={tmp_path}")
    assert answer.code == 0
    assert [r.placement for r in records(tmp_path / "synthetic")] == ["any"]
    assert "left out  placement=post: the same network as none-lr2e-3-s0" in answer.out


@pytest.mark.slow
def test_the_same_network_under_another_name_is_the_run_that_is_there(
    train_py: Callable, tmp_path: Path
) -> None:
    # Below four blocks Mix-LN has no first quarter.
    assert train_py("placement=pre", *TINY, f"output_dir={tmp_path}").code == 0
    answer = train_py(
        "-m", "placement=mixln,rezero", "norm=rmsnorm,dyt", *TINY, f"output_dir={tmp_path}"
    )
    assert answer.code == 0
    assert "placement=rezero norm=dyt: the same network as rezero-lr2e-3-s0" in answer.out
    found = sorted((r.norm, r.placement) for r in records(tmp_path / "synthetic"))
    assert found == [("any", "rezero"), ("dyt", "mixln"), ("rmsnorm", "pre")]


@pytest.mark.slow
def test_a_margin_belongs_to_the_command_and_not_to_the_runs(
    train_py: Callable, tmp_path: Path
) -> None:
    """Runs that are there keep their ids and are read with the margin of today."""
    command = ("-m", "norm=rmsnorm,layernorm", "seed=0,1,2", *TINY, f"output_dir={tmp_path}")
    first = train_py(*command)
    assert "end the same" not in first.out
    before = sorted((tmp_path / "synthetic").glob("*/run.json"))
    second = train_py(*command, "margin=5")
    assert (second.code, second.err) == (0, "")
    assert "6 already there" in second.out
    assert sorted((tmp_path / "synthetic").glob("*/run.json")) == before
    assert "end the same within 5 nats per token" in second.out
    assert "several values" in train_py(*command, "margin=1,2").err


def test_a_plain_command_is_a_study_of_one(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py(*TINY, "study=one", f"output_dir={tmp_path}")
    assert answer.code == 0
    assert [r.norm for r in records(tmp_path / "one")] == ["rmsnorm"]
    assert (tmp_path / "one" / "figures" / "comparison.png").is_file()


@pytest.mark.slow
def test_an_experiment_may_bring_its_own_sweep(train_py: Callable, tmp_path: Path) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "two_seeds.yaml").write_text(
        "# @package _global_\n# two seeds\nstudy: two_seeds\n"
        "hydra:\n  sweeper:\n    params:\n      seed: 3,4\n"
    )
    arguments = ("--config-dir", str(own.parent), "experiment=two_seeds", *TINY)
    assert train_py(*arguments, f"output_dir={tmp_path}").code == 0
    assert sorted(r.seed for r in records(tmp_path / "two_seeds")) == [3, 4]
    assert train_py(*arguments, "seed=5", f"output_dir={tmp_path}").code == 0
    assert sorted(r.seed for r in records(tmp_path / "two_seeds")) == [3, 4, 5]


@pytest.mark.slow
def test_a_sweep_of_learning_rates_names_no_run_and_yields_to_the_command_line(
    train_py: Callable, tmp_path: Path
) -> None:
    place = (*TINY, f"output_dir={tmp_path}", "study=rates")
    rates = "optimizer.lr=1e-3,3e-3,1e-2"
    first = train_py("-m", "sweep=lr", rates, *place)
    assert first.code == 0
    assert sorted(r.config["optimizer"]["lr"] for r in records(tmp_path / "rates")) == [
        1e-3, 3e-3, 1e-2,
    ]  # fmt: skip
    assert "Each arm at its own best of 3 learning rates" in first.out
    assert (tmp_path / "rates" / "figures" / "learning_rate.png").is_file()
    assert train_py(*place, "optimizer.lr=3e-3").code == 0  # the same run: nothing is trained
    assert len(records(tmp_path / "rates")) == 3
    assert all("sweep" not in {**r.choices, **r.config} for r in records(tmp_path / "rates"))


@pytest.mark.usefixtures("without_figures")
def test_a_norm_of_ones_own_needs_a_file_and_nothing_else(
    train_py: Callable, tmp_path: Path
) -> None:
    own = tmp_path / "own" / "norm"
    own.mkdir(parents=True)
    (own / "torch_rms.yaml").write_text("# torch's own\n_target_: torch.nn.RMSNorm\neps: 1e-6\n")
    answer = train_py(
        "--config-dir", str(own.parent), "norm=torch_rms", *TINY, f"output_dir={tmp_path}"
    )
    assert answer.code == 0, answer.err
    assert [r.norm for r in records(tmp_path / "synthetic")] == ["torch_rms"]


@pytest.mark.slow
def test_data_may_vary_within_one_study(train_py: Callable, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 100)
    shapes = [override for override in TINY if "validation_windows" not in override]
    answer = train_py(
        "-m", "model.width=16,32", "data=text", f"data.path={text}", "study=two", *shapes[:1],
        *shapes[2:], f"output_dir={tmp_path}",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert len(records(tmp_path / "two")) == 2


@pytest.mark.parametrize("override", ["data=shakespeare", "experiment=nanogpt_cpu"])
def test_missing_real_text_is_said_before_anything_is_written(
    override: str, train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py(override, f"data.path={tmp_path}", f"output_dir={tmp_path}/o")
    assert answer.code == 1
    assert str(tmp_path) in answer.err
    assert not (tmp_path / "o").exists()


@pytest.mark.usefixtures("without_figures")
def test_a_text_that_changed_is_not_taken_for_the_one_that_was_trained_on(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = tmp_path / "book.txt"
    text.write_text("to be or not to be, that is the question. " * 40)
    command = [*TINY, "data=text", f"data.path={text}", f"output_dir={tmp_path}/o"]
    command = [word for word in command if "validation_windows" not in word]
    assert train_py(*command).code == 0
    assert "1 already there" in train_py(*command).out
    text.write_text("that is the question, to be or not to be. " * 40)
    answer = train_py(*command)
    assert answer.code == 2
    assert "another text" in answer.err
    assert "study=" in answer.err
    assert train_py(*command, "study=second").code == 0


def test_where_shakespeare_lies_does_not_change_who_a_run_is(specified: Callable) -> None:
    here = specified("data=shakespeare", "data.path=/here/a.txt")
    there = specified("data=shakespeare", "data.path=/there/b.txt")
    assert here.id == there.id
    assert specified("data=text", "data.path=a").id != specified("data=text", "data.path=b").id


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_result_without_its_curves_is_trained_again(
    damage: Callable[[Path], object], train_py: Callable, tmp_path: Path
) -> None:
    assert train_py(*TINY, f"output_dir={tmp_path}").code == 0
    (events,) = tmp_path.glob("*/*/events.out.tfevents*")
    damage(events)
    again = train_py(*TINY, f"output_dir={tmp_path}")
    assert again.code == 0, again.err
    assert "do not hold what was logged; the run starts afresh" in again.out + again.err
    (events,) = tmp_path.glob("*/*/events.out.tfevents*")
    assert events.stat().st_size
    assert "No run has finished" not in again.out


def test_a_folder_of_the_job_is_refused(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py("hydra.job.chdir=true", *TINY, f"output_dir={tmp_path}")
    assert answer.code == 2
    assert "hydra.job.chdir=true is not allowed" in answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_figures")
def test_a_file_that_is_edited_meanwhile_trains_no_other_run(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job is composed as it begins; the second finds another file than the plan."""
    option = tmp_path / "own" / "norm" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("_target_: normlab.norms.RMSNorm\neps: 1e-5\n")
    train = workers.train_with_progress

    def train_and_edit(*arguments: Any, **keywords: Any) -> str:
        option.write_text("_target_: normlab.norms.RMSNorm\neps: 1e-2\n")
        return train(*arguments, **keywords)

    monkeypatch.setattr(workers, "train_with_progress", train_and_edit)
    own = ("--config-dir", str(option.parents[1]), "-m", "norm=mine", "seed=0,1", "jobs=1")
    answer = train_py(*own, "hydra/launcher=basic", *TINY, f"output_dir={tmp_path / 'o'}")
    assert answer.code == 1
    assert "a file of the configuration has changed since the command began" in answer.err
    assert [r.seed for r in records(tmp_path / "o" / "synthetic")] == [0]
