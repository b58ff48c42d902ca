"""Experiments: arms that go together, and what a budget means beside the length of a run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.archive.record import RunRecord
from normlab.config.compose import composed_config
from normlab.errors import ConfigError
from normlab.study.plan import SweepRequest, make_plan
from tiny_run import TINY

ARMS = ("norm=none", "norm=layernorm placement=post")
SIZES = {"quick": {"seed": "0", "optimizer.lr": 1}, "full": {"seed": "0,1,2"}}

EXPERIMENT = """
# @package _global_
study: mine
hydra:
  sweeper:
    arms: [norm=none placement=pre, norm=layernorm placement=post, norm=rmsnorm placement=pre]
    budgets:
      quick: {seed: 3}
      standard: {seed: "3,4"}
"""


def test_arms_are_taken_whole() -> None:
    arms, others = SweepRequest(arms=ARMS).expand_arms(["model.depth=2"], "quick")
    assert arms == [("norm=none",), ("norm=layernorm", "placement=post")]
    assert others == ["model.depth=2"]


def test_without_arms_norms_are_as_any_other_key() -> None:
    assert SweepRequest().expand_arms(["norm=a,b"], "quick") == ([()], ["norm=a,b"])


def test_a_norm_on_the_command_line_stands_beside_the_arms() -> None:
    arms, others = SweepRequest(arms=ARMS).expand_arms(
        ["norm=dyt,derf", "placement=pre", "seed=1"], "quick"
    )
    assert arms[2:] == [("norm=dyt", "placement=pre"), ("norm=derf", "placement=pre")]
    assert others == ["seed=1"]
    assert SweepRequest(arms=ARMS).expand_arms(["norm=none"], "quick")[0] == [
        ("norm=none",),
        ("norm=layernorm", "placement=post"),
    ]


def test_arms_on_the_command_line_take_every_list_of_hydra() -> None:
    request = SweepRequest(arms=ARMS)
    with composed_config([]) as (loader, _):
        arms, _ = request.expand_arms(["norm=glob(*rms*)", "placement=pre"], "quick", loader)
        assert ("norm=rmsnorm", "placement=pre") in arms
        assert len(arms) > len(ARMS) + 1
        for word, said in {
            "norm=interval(0,3)": "is not a list of values",
            "norm=range(0,1000000000)": "gives more than 10,000 values",
        }.items():
            with pytest.raises(ConfigError, match=said):
                request.expand_arms([word], "quick", loader)


def test_a_budget_brings_its_sizes_and_the_command_line_wins() -> None:
    asked = SweepRequest(params={"optimizer.lr": 7, "data": "text"}, budgets=SIZES)
    assert asked.expand_arms([], "quick")[1] == ["seed=0", "optimizer.lr=7", "data=text"]
    full = asked.expand_arms(["budget=full"], "full")[1]
    assert full == ["seed=0,1,2", "optimizer.lr=7", "data=text", "budget=full"]
    assert asked.expand_arms(["seed=9"], "full")[1] == ["optimizer.lr=7", "data=text", "seed=9"]
    assert asked.study_name("mine", "full") == "mine-full"
    assert SweepRequest().study_name("mine", "full") == "mine"


@pytest.mark.parametrize(
    ("given", "budget", "said"),
    [
        (["budget=quick,full"], "quick", "budget=quick,full"),
        (["budget=glob(*)"], "quick", "budget=glob(*)"),
        ([], "standard", "budget=standard"),
    ],
)
def test_a_budget_without_a_size_is_refused(given: list[str], budget: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SweepRequest(budgets=SIZES).expand_arms(given, budget)
    assert str(caught.value).startswith(said)
    assert "budget=quick, budget=full" in str(caught.value)


@pytest.mark.slow
def test_an_experiment_trains_its_arms_at_the_size_of_its_budget(
    train_py: Callable, tmp_path: Path
) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(EXPERIMENT.lstrip())
    own = ("--config-dir", str(tmp_path / "conf"), "experiment=mine", f"output_dir={tmp_path}")
    answer = train_py(*own, *TINY)
    assert answer.code == 0, answer.err
    found = {
        path.parent.name: RunRecord.read(path.parent) for path in tmp_path.glob("*/*/run.json")
    }
    assert {(r.norm, r.placement, r.seed) for r in found.values()} == {
        ("none", "any", 3),
        ("layernorm", "post", 3),
        ("rmsnorm", "pre", 3),
    }
    assert (tmp_path / "mine-quick" / "runs.csv").exists()
    standard = train_py(*own, "budget=standard", *TINY)
    assert standard.code == 0, standard.err
    assert "6 runs" in standard.out
    assert len(list((tmp_path / "mine-standard").glob("*/run.json"))) == 6
    refused = train_py(*own, "budget=full", *TINY)
    assert refused.code == 2
    assert "budget=quick, budget=standard" in refused.err


def test_arms_count_among_the_runs_of_a_command() -> None:
    arms = [("norm=rmsnorm",), ("norm=layernorm",), ("norm=none",)]
    with composed_config([]) as (loader, master), pytest.raises(ConfigError) as caught:
        make_plan(loader, master, ["seed=range(0,5000)"], "mine", arms)
    assert str(caught.value).startswith("the command asks for 15,000 runs (3 × 5000), and the most")
