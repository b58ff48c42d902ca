"""A run is known by the configuration that decides its numbers, and by nothing else."""

from collections.abc import Callable

import pytest

from normlab.archive.record import run_name, short_number
from normlab.errors import ConfigError


def test_where_results_are_kept_does_not_change_who_a_run_is(composed: Callable) -> None:
    here = composed()
    there = composed("study=elsewhere", "output_dir=/there", "logger.flush_seconds=1")
    assert here.id == there.id
    assert here.folder != there.folder


@pytest.mark.parametrize(
    "override",
    ["seed=1", "norm=layernorm", "norm.eps=1e-6", "placement=post", "optimizer.lr=5e-3",
     "model.depth=5", "data.order=2", "trainer.max_steps=7", "schedule=constant"],
)  # fmt: skip
def test_what_decides_the_numbers_changes_who_a_run_is(override: str, specified: Callable) -> None:
    assert specified(override).id != specified().id


def test_the_same_choice_written_twice_is_the_same_run(specified: Callable) -> None:
    assert specified("optimizer.lr=0.001").id == specified("optimizer.lr=1e-3").id
    assert (
        specified("budget.max_steps=9").id
        == specified("trainer.max_steps=9", "budget.max_steps=9").id
    )


def test_without_a_norm_its_placement_is_the_same_network(specified: Callable) -> None:
    pre, post = specified("norm=none", "placement=pre"), specified("norm=none", "placement=post")
    assert pre.id == post.id
    assert pre.name == post.name
    assert pre.choices["placement"] == "any"


def test_without_a_norm_a_scaled_branch_is_another_network(specified: Callable) -> None:
    scaled = specified("norm=none", "placement.branch=0.5")
    assert scaled.id != specified("norm=none").id
    assert scaled.choices["placement"] == "pre"


def test_a_name_says_norm_placement_rate_and_seed(specified: Callable) -> None:
    spec = specified("norm=layernorm", "placement=post", "optimizer.lr=3e-3", "seed=2")
    assert spec.name == f"layernorm-post-lr3e-3-s2-{spec.id}"


@pytest.mark.parametrize(
    ("lr", "text"), [(3e-3, "3e-3"), (0.01, "1e-2"), (0.03, "0.03"), (0.1, "0.1")]
)
def test_a_name_writes_rates_as_the_folders_of_runs_have_them(lr: float, text: str) -> None:
    name = run_name("rmsnorm", "pre", lr, 0, "1a2b3c4d")
    assert name == f"rmsnorm-pre-lr{text}-s0-1a2b3c4d"


def test_a_name_never_leaves_its_folder() -> None:
    name = run_name("../../etc", "p/q", 1e-3, 0, "deadbeef")
    assert "/" not in name
    assert len(run_name("n" * 300, "pre", 1e-3, 0, "deadbeef")) < 100


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-3, "3e-3"), (1.5e-4, "1.5e-4"), (0.1, "0.1"), (0.01, "1e-2"), (2.0, "2"), (0.0, "0")],
)
def test_rates_are_written_as_people_write_them(value: float, text: str) -> None:
    assert short_number(value) == text


@pytest.mark.parametrize(
    ("overrides", "study"),
    [
        ([], "synthetic"),
        (["data=shakespeare"], "shakespeare"),
        (["data=text", "data.path=/books/my book.txt"], "text-my_book"),
        (["data=text", "data.path='notes/**/*.md'", "data.tokens=bpe"], "text-notes_md-bpe-1024"),
        (["data=text", "data.path=x", "study=mine"], "mine"),
    ],
)
def test_a_study_is_named_by_its_data_unless_the_user_names_it(
    overrides: list[str], study: str, specified: Callable
) -> None:
    assert specified(*overrides).config.study == study


@pytest.mark.parametrize(
    ("data", "override"),
    [
        ("synthetic", "data.kind=wikipedia"),
        ("synthetic", "data.batch_size=0"),
        ("synthetic", "data.vocabulary=1"),
        ("synthetic", "data.order=0"),
        ("synthetic", "data.concentration=0.0"),
        ("synthetic", "data.concentration=nan"),
        ("synthetic", "data.validation_windows=0"),
        ("shakespeare", "data.validation_windows=0"),
        ("shakespeare", "data.validation_fraction=0.0"),
        ("shakespeare", "data.validation_fraction=1.0"),
        ("synthetic", "seed=-1"),
    ],
)
def test_values_of_data_out_of_range_are_refused(
    data: str, override: str, specified: Callable
) -> None:
    with pytest.raises(ConfigError, match=rf"^{override} is not allowed; it must be "):
        specified(f"data={data}", override)
