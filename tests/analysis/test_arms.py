from pathlib import Path
from typing import Any

import pytest

from normlab.analysis.arms import format_value, group_runs, split_facets
from normlab.analysis.result import plan_figures
from normlab.archive.events import Events
from normlab.archive.record import FinalNumbers, RunRecord
from normlab.archive.study import Run


def run(
    norm: str = "rmsnorm",
    placement: str = "pre",
    seed: int = 0,
    /,
    command: str = "train.py -m norm=rmsnorm,layernorm placement=pre,post",
    choices: dict[str, str] | None = None,
    **config: Any,
) -> Run:
    record = RunRecord(
        id="", name="", norm=norm, placement=placement, data="synthetic", seed=seed,
        choices={"norm": norm, "placement": placement, "data": "synthetic", **(choices or {})},
        config={"seed": seed, "study": f"s{seed}", **config}, command=command,
    )  # fmt: skip
    return Run(Path("run"), record, Events())


def labels(*runs: Run) -> list[str]:
    return [arm.label for arm in group_runs(runs)]


def test_an_arm_is_everything_but_the_seed() -> None:
    arms = group_runs([run(n, "pre", s) for s in range(3) for n in ("rmsnorm", "layernorm")])
    assert [arm.label for arm in arms] == ["layernorm · pre", "rmsnorm · pre"]
    assert [[r.record.seed for r in arm.runs] for arm in arms] == [[0, 1, 2], [0, 1, 2]]


def test_a_key_that_differs_only_with_its_groups_option_names_nothing() -> None:
    assert labels(
        run("rmsnorm", norm={"eps": 1e-6}), run("layernorm", norm={"eps": 1e-5, "bias": True})
    ) == ["layernorm · pre", "rmsnorm · pre"]


def test_a_key_that_differs_within_an_option_names_the_arm() -> None:
    assert labels(run(norm={"eps": 1e-6}), run(norm={"eps": 1e-5}), run("none", "any")) == [
        "rmsnorm · pre · eps=1e-6",
        "rmsnorm · pre · eps=1e-5",
        "none",
    ]


def test_numbers_are_ordered_by_value() -> None:
    rates = [1e-2, 3e-4, 1.0, 3e-3]
    assert labels(*[run(optimizer={"lr": lr}) for lr in rates]) == [
        f"rmsnorm · pre · lr={lr}" for lr in ("3e-4", "3e-3", "1e-2", "1")
    ]


def test_another_groups_option_names_the_arm_and_its_keys_do_not() -> None:
    small, large = {"depth": 4, "width": 128}, {"depth": 8, "width": 256}
    assert labels(
        run(choices={"model": "small"}, model=small), run(choices={"model": "large"}, model=large)
    ) == ["rmsnorm · pre · model=large", "rmsnorm · pre · model=small"]


def test_a_consequence_of_what_was_asked_for_is_not_repeated() -> None:
    def with_rate(lr: float, command: str) -> Run:
        return run(command=command, optimizer={"lr": lr}, schedule={"last": lr / 10})

    asked = "train.py -m optimizer.lr=0.5,0.25"
    assert labels(with_rate(0.5, asked), with_rate(0.25, asked)) == [
        "rmsnorm · pre · lr=0.25",
        "rmsnorm · pre · lr=0.5",
    ]
    # Nobody said which is the cause: both are named rather than one hidden.
    assert (
        labels(with_rate(0.5, ""), with_rate(0.25, ""))[1] == "rmsnorm · pre · lr=0.5 · last=5e-2"
    )


def test_a_rate_that_differs_with_the_norm_is_never_hidden() -> None:
    assert labels(
        run("rmsnorm", optimizer={"lr": 5e-4}), run("layernorm", optimizer={"lr": 1e-4})
    ) == ["layernorm · pre · lr=1e-4", "rmsnorm · pre · lr=5e-4"]


def test_where_results_lie_and_the_seed_of_anything_name_nothing() -> None:
    assert labels(
        run(logger={"flush": 1}, output_dir="a", data={"seed": 1}),
        run("rmsnorm", "pre", 1, logger={"flush": 2}, output_dir="b", data={"seed": 2}),
    ) == ["rmsnorm · pre"]


def test_without_a_norm_the_placement_means_nothing() -> None:
    (arm,) = group_runs(
        [run("none", "any", s, placement={"input": s == 0}, choices={"x": "y"}) for s in range(2)]
    )
    assert arm.label == "none"
    assert len(arm.runs) == 2


def test_equal_last_parts_are_named_in_full() -> None:
    runs = [run(model={"width": w}, data={"width": d}) for w in (1, 2) for d in (1, 2)]
    assert labels(*runs)[0] == "rmsnorm · pre · model.width=1 · data.width=1"


def test_a_facet_is_a_combination_of_the_other_settings() -> None:
    runs = [run(n, optimizer={"lr": lr}) for lr in (0.5, 0.25) for n in ("rmsnorm", "layernorm")]
    found = split_facets(group_runs(runs))
    assert [facet.title for facet in found] == ["lr=0.25", "lr=0.5"]
    assert [arm.name for arm in found[0].arms] == ["layernorm · pre", "rmsnorm · pre"]


def test_an_arm_without_the_setting_stands_in_every_facet() -> None:
    runs = [run(norm={"eps": eps}) for eps in (0.5, 0.25)]
    found = split_facets(group_runs([*runs, run("none", "any")]))
    assert [[arm.name for arm in facet.arms] for facet in found] == [["rmsnorm · pre", "none"]] * 2


def test_one_facet_without_title_where_nothing_else_varies() -> None:
    (only,) = split_facets(group_runs([run(), run("layernorm")]))
    assert only.title == ""
    assert len(only.arms) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-3, "3e-3"), (0.00125, "1.25e-3"), (0.1, "0.1"), (1.0, "1"), (128, "128"), (True, "true"),
     (None, "null"), ([0.9, 0.95], "[0.9, 0.95]"), ("cosine", "cosine")],
)  # fmt: skip
def test_values_are_written_as_one_would(value: object, text: str) -> None:
    assert format_value(value) == text


def test_runs_of_unlike_commands_are_named_by_the_fewest_settings_that_tell_them_apart() -> None:
    models = [(4, 128, 4, 0.1), (2, 128, 4, 0.1), (2, 64, 2, 0.1), (8, 64, 2, 0.2)]
    runs = [
        run(
            command="train.py -m model.depth=1,2 model.width=1 model.heads=1 trainer.decay=1",
            model={"depth": depth, "width": width, "heads": heads},
            trainer={"decay": decay},
        )
        for depth, width, heads, decay in models
    ]
    arms = group_runs(runs)
    names = sorted(facet.title for facet in split_facets(arms))
    assert names == [
        "depth=2 · width=128",
        "depth=2 · width=64",
        "depth=4 · width=128",
        "depth=8 · width=64",
    ]
    assert len(arms[0].settings) == 4  # what they are compared by


def test_facets_are_named_where_only_arms_without_the_setting_are_shown() -> None:
    runs = [run(f"norm{at:02}") for at in range(13)]
    runs += [run("bad", norm={"foo": foo}) for foo in (1, 2)]
    for at, one in enumerate(runs):
        one.record.state = "finished"
        one.record.final = FinalNumbers(1.0 + at)
    planned = plan_figures("study", group_runs(runs))
    assert [facet.title for facet in planned.ranked] == ["foo=1", "foo=2"]
    assert all("bad" not in {arm.norm for arm in facet.arms} for facet in planned.ranked)


NEUTRAL = {"save_seconds": 60, "log_every": 5, "gradient_checkpointing": True}


@pytest.mark.parametrize("key", NEUTRAL)
def test_a_key_that_changes_no_result_makes_no_arm(key: str) -> None:
    plain = {"max_steps": 100, "save_seconds": 30, "log_every": 10, "gradient_checkpointing": False}
    before = [run("rmsnorm", "pre", seed, trainer=plain) for seed in (0, 1)]
    after = [run("rmsnorm", "pre", seed, trainer={**plain, key: NEUTRAL[key]}) for seed in (2, 3)]
    (arm,) = group_runs([*before, *after])
    assert len(arm.runs) == 4


@pytest.mark.parametrize("change", [{"margin": 0.01}, {"jobs": 1}, {"trainer": NEUTRAL}], ids=str)
def test_a_run_trained_again_with_probes_is_one_seed(change: dict[str, Any]) -> None:
    before = run("rmsnorm", "pre", 0, margin=None, trainer={"save_seconds": 30})
    again = run(
        "rmsnorm",
        "pre",
        0,
        **{"margin": None, "trainer": {"save_seconds": 30}, **change},
        probes={"every": 10},
    )
    before.record.state = again.record.state = "finished"
    for runs in ([before, again], [again, before]):
        (arm,) = group_runs(runs)
        assert arm.runs == (again,)


@pytest.mark.parametrize("state", ["interrupted", "running", "failed"])
def test_a_repeat_without_a_result_hides_no_finished_run(state: Any) -> None:
    before, again = run(), run(probes={"every": 10})
    before.record.state, again.record.state = "finished", state
    for runs in ([before, again], [again, before]):
        (arm,) = group_runs(runs)
        assert arm.runs == (before,)
