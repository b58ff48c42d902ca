"""A verdict says what the losses give, and no more."""

import math
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from normlab.analysis.arms import group_runs, split_facets
from normlab.analysis.comparison import compare_arms, losses_by_seed, mostly_diverged
from normlab.analysis.conclusions import MOST_SENTENCES
from normlab.analysis.curves import describe_ending
from normlab.analysis.family import family_differences
from normlab.analysis.formatting import format_interval
from normlab.analysis.report_tables import comparisons_table as report_comparisons
from normlab.analysis.report_tables import diverged_table
from normlab.analysis.result import StudyResult, analyse_study
from normlab.analysis.terminal_tables import comparisons_table
from normlab.archive.events import Events
from normlab.archive.record import FinalNumbers, GitState, RunRecord
from normlab.archive.study import Run, Study


def run(
    loss: float | None,
    norm: str = "rmsnorm",
    placement: str = "pre",
    seed: int = 0,
    **record: Any,
) -> Run:
    """A run that ended at this loss; None: it diverged at step 40."""
    config = {"seed": seed, "trainer": {"max_steps": 100}, **record.pop("config", {})}
    known: dict[str, Any] = {
        "state": "diverged" if loss is None else "finished",
        "diverged_step": 40 if loss is None else None,
        "choices": {"norm": norm, "placement": placement},
        "precision": "32-true",
        "device": "cpu (x)",
    }
    written = RunRecord(
        id="", name=f"{norm}-{placement}-s{seed}", norm=norm, placement=placement, data="synthetic",
        seed=seed, config=config, final=FinalNumbers(loss, loss), **{**known, **record},
    )  # fmt: skip
    return Run(Path("run"), written, Events())


def arm(losses: list[float | None], *words: str, first: int = 0, **record: Any) -> list[Run]:
    return [run(loss, *words, first + at, **record) for at, loss in enumerate(losses)]


def judged(*arms: list[Run]) -> StudyResult:
    return analyse_study(Study(Path("study"), [one for runs in arms for one in runs]))


PRE, POST, LAYER = ("rmsnorm", "pre"), ("rmsnorm", "post"), ("layernorm", "pre")


def test_a_clear_difference_is_told_with_interval_seeds_and_p() -> None:
    low, high = [1.90, 1.91, 1.92], [1.9201, 1.9300, 1.9402]
    found = judged(arm(list(low), *PRE), arm(list(high), *POST))
    (one,) = found.comparisons
    oracle = stats.ttest_rel(low, high)
    assert one.difference.p == pytest.approx(oracle.pvalue)
    assert one.outcome == "lower"
    assert found.sentences == (
        "rmsnorm · pre ends lower than rmsnorm · post by 0.0201 ± 0.0002 nats per token "
        "(3 paired seeds, p < 0.001).",
    )
    assert found.warnings == ()


def test_where_the_numbers_do_not_tell_it_says_what_they_could_have_shown() -> None:
    found = judged(arm([1.90, 1.93, 1.92], *PRE), arm([1.92, 1.92, 1.93], *POST))
    difference = found.comparisons[0].difference
    assert found.comparisons[0].outcome == "cannot tell"
    error = np.std([-0.02, 0.01, -0.01], ddof=1) / math.sqrt(3)
    detectable = (stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)) * error
    assert difference.detectable == pytest.approx(detectable)
    assert found.sentences == (
        "rmsnorm · pre and rmsnorm · post: cannot tell (difference 0.0067 ± 0.0379, 3 paired "
        f"seeds, p = 0.53; a true difference of {detectable:.4f} would be reported in 4 of 5 such "
        "studies).",
    )


def test_within_the_margin_arms_end_the_same() -> None:
    low, high = arm([1.900, 1.931, 1.920], *PRE), arm([1.901, 1.930, 1.921], *POST)
    study = Study(Path("study"), [*low, *high])
    (told,) = analyse_study(study, margin=0.01).sentences
    assert told.startswith(
        "rmsnorm · pre and rmsnorm · post end the same within 0.01 nats per token (difference "
        "0.0003 ± 0.0029, "
    )
    assert "cannot tell" in analyse_study(study, margin=0.003).sentences[0]
    assert "cannot tell" in analyse_study(study).sentences[0]


def test_a_margin_that_all_runs_name_is_the_study_s() -> None:
    def both(post_margin: float) -> list[Run]:
        pre = arm([1.900, 1.931, 1.920], *PRE, config={"margin": 0.01})
        return pre + arm([1.901, 1.930, 1.921], *POST, config={"margin": post_margin})

    assert judged(both(0.01)).comparisons[0].outcome == "the same"
    assert judged(both(0.02)).comparisons[0].outcome == "cannot tell"


def test_a_sure_difference_below_the_margin_is_told_with_it() -> None:
    study = Study(
        Path("study"), arm([1.90, 1.91, 1.92], *PRE) + arm([1.901, 1.9111, 1.9209], *POST)
    )
    (told,) = analyse_study(study, margin=0.01).sentences
    assert "ends lower than rmsnorm · post by 0.0010 ± 0.0002 nats per token, less than the" in told


def test_every_pair_that_the_best_was_chosen_from_is_counted() -> None:
    losses = [[1.90, 1.91, 1.92], [1.92, 1.931, 1.9399], [1.93, 1.9405, 1.95], [1.95, 1.9595, 1.97]]
    names = (PRE, POST, LAYER, ("none", "any"))
    found = judged(*(arm(list(row), *name) for row, name in zip(losses, names, strict=True)))
    assert {one.best.name for one in found.comparisons} == {"rmsnorm · pre"}
    by_seed = [dict(enumerate(row)) for row in losses]
    expected = family_differences(by_seed, [(0, 1), (0, 2), (0, 3)])
    assert [one.difference for one in found.comparisons] == list(expected.values())
    alone = family_differences(by_seed[:2], [(0, 1)])[0, 1]
    assert found.comparisons[0].difference.p > alone.p


def test_facets_share_out_the_level() -> None:
    """Two arms at one and at six learning rates: p is six times as large."""
    low, high = [1.90, 1.91, 1.92], [1.9201, 1.9300, 1.9452]
    runs = [
        run_
        for rate in range(6)
        for run_ in (
            *arm(list(low), *PRE, config={"model": {"width": rate}}),
            *arm(list(high), *POST, config={"model": {"width": rate}}),
        )
    ]
    p = stats.ttest_rel(low, high).pvalue
    assert [one.difference.p for one in judged(runs).comparisons] == pytest.approx([6 * p] * 6)


@pytest.mark.slow
def test_studies_of_equal_arms_seldom_tell_a_difference() -> None:
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(200):
        losses = rng.normal(size=(6, 4)) + rng.normal(size=4)
        arms = [arm(list(row), "rmsnorm", f"p{at}") for at, row in enumerate(losses)]
        every = group_runs([one for runs in arms for one in runs])
        told += any(one.outcome != "cannot tell" for one in compare_arms(split_facets(every)))
    assert told <= 14  # at most 5 % of 200, and 1.5 standard errors


def test_one_seed_gives_no_verdict_and_says_what_to_add() -> None:
    found = judged(arm([1.9], *PRE), arm([1.92], *POST), arm([1.95], *LAYER))
    assert found.sentences == (
        "rmsnorm · pre ends lowest, at 1.9000 nats per token, 0.0200 below rmsnorm · post, the "
        "nearest of 2 others; one seed cannot separate this from noise.",
    )
    (warning,) = found.warnings
    assert "seed=0,1,2" in warning


def test_diverged_runs_are_counted_with_when_and_where() -> None:
    found = judged(arm([1.90, 1.91, 1.92], *PRE), arm([None, None, None], "none", "any"))
    assert found.sentences[-1] == "Diverged: 3 of 6 runs: none (3 of 3, step 40)."
    assert found.comparisons == ()
    assert found.sentences[0].startswith("rmsnorm · pre ends at 1.9100 ± ")


def test_survivors_do_not_stand_for_an_arm_that_mostly_diverged() -> None:
    found = judged(arm([1.90, 1.91, 1.92], *PRE), arm([1.5, 1.5, None, None], *POST))
    assert found.comparisons == ()
    assert found.sentences[-1] == (
        "Of the finished and diverged runs half or more diverged, so the others do not stand for "
        "the arm and are not compared: rmsnorm · post."
    )


def test_runs_without_a_result_do_not_dilute_those_that_diverged() -> None:
    lost = [*arm([1.95, None], *POST), run(None, *POST, 2, state="running", diverged_step=None)]
    found = judged(arm([1.90, 1.91, 1.92], *PRE), lost)
    assert found.comparisons == ()
    assert "rmsnorm · post" in found.sentences[-1]
    waiting = [run(None, *POST, state="running", diverged_step=None)]
    (waiting_arm,) = group_runs(waiting)
    assert not mostly_diverged(waiting_arm)


def test_a_run_may_diverge_at_its_first_step() -> None:
    runs = [*arm([1.90, 1.91, 1.92], *PRE), run(None, *POST, diverged_step=0, step=5)]
    assert "rmsnorm · post (1 of 1, step 0)" in judged(runs).sentences[-1]
    result = judged(runs)
    assert describe_ending(result.arms[0]) == "diverged at step 0"
    runs.append(run(None, *LAYER, diverged_step=3, step=5))
    table = diverged_table(judged(runs))
    assert table is not None
    assert [row[1].text for row in table.rows] == ["0", "3"]


def test_equal_losses_are_called_the_same() -> None:
    found = judged(arm([1.90, 1.91, 1.92], *PRE), arm([1.90, 1.91, 1.92], *POST))
    (sentence,) = found.sentences
    assert sentence.endswith("end at the same losses (3 paired seeds, p = 1.00).")


def test_an_arm_that_lost_a_run_is_compared_and_that_is_said() -> None:
    found = judged(arm([1.90, 1.91, 1.92], *PRE), arm([1.95, 1.96, None], *POST))
    assert found.comparisons[0].difference.pairs == 2
    assert "; 1 of 3 rmsnorm · post runs diverged and are not in it" in found.sentences[0]


def test_facets_are_compared_within_themselves() -> None:
    def at(lr: float, losses: list[float | None], *words: str) -> list[Run]:
        return arm(losses, *words, config={"optimizer": {"lr": lr}})

    found = judged(
        at(0.5, [1.0, 1.1, 1.2], *PRE), at(0.5, [2.0, 2.1001, 2.2], *POST),
        at(0.25, [3.0, 3.1, 3.2], *PRE), at(0.25, [2.9, 3.0002, 3.1], *POST),
    )  # fmt: skip
    assert [(one.facet, one.best.name) for one in found.comparisons] == [
        ("lr=0.25", "rmsnorm · post"),
        ("lr=0.5", "rmsnorm · pre"),
    ]
    assert all(sentence.startswith("At lr=") for sentence in found.sentences)


def test_arms_that_learned_several_texts_are_not_compared() -> None:
    """Also where they learned the same ones: their means are of no text."""
    arms = [
        arm([level, level + 0.01], *words, data_digest="a")
        + arm([level - 0.9, level - 0.89], *words, first=2, data_digest="b")
        for level, words in ((1.9, PRE), (2.0, POST))
    ]
    result = judged(*arms)
    assert result.comparisons == ()
    (warning,) = [line for line in result.warnings if "different data" in line]
    assert "rmsnorm · pre" in warning
    assert "rmsnorm · post" in warning


@pytest.mark.parametrize("state", ["interrupted", "running", "failed"])
@pytest.mark.parametrize("alone", [False, True], ids=["beside finished runs", "alone"])
def test_a_run_that_has_not_opened_its_text_ends_no_comparison(state: str, alone: bool) -> None:
    words, seed = (LAYER, 0) if alone else (PRE, 2)
    unopened = run(None, *words, seed=seed, state=state, diverged_step=None, data_digest=None)
    arms = [arm([level, level + 0.01], *name, data_digest="a") for name, level in
            ((PRE, 1.9), (POST, 2.0))]  # fmt: skip
    result = judged(*arms, [unopened])
    assert len(result.comparisons) == 1
    assert "different data" not in " ".join(result.warnings)


def test_losses_on_different_data_are_not_compared() -> None:
    found = judged(
        arm([1.90, 1.91], *PRE, data_digest="a"), arm([0.90, 0.91], *POST, data_digest="b")
    )
    assert found.comparisons == ()
    assert "Losses on different data do not compare" in " ".join(found.warnings)


def test_unequal_seeds_are_compared_by_welch() -> None:
    low, high = [1.90, 1.91, 1.92], [2.90, 2.91, 2.92]
    found = judged(arm(list(low), *PRE), arm(list(high), *POST, first=3))
    (one,) = found.comparisons
    assert one.difference.p == pytest.approx(stats.ttest_ind(low, high, equal_var=False).pvalue)
    assert "unequal seeds, Welch's test" in found.sentences[0]
    assert "rmsnorm · post lacks seed=0,1,2" in found.warnings[0]


def test_the_arm_with_the_lower_mean_may_be_the_higher_over_equal_seeds() -> None:
    found = judged(arm([1.90, 1.91, 1.92, 1.0], *PRE), arm([1.80, 1.8101, 1.82], *POST))
    (one,) = found.comparisons
    assert (one.best.name, one.outcome) == ("rmsnorm · pre", "higher")
    assert found.sentences[0].startswith("rmsnorm · post ends lower than rmsnorm · pre by 0.1000")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([run(None)], "No run has finished"),
        ([run(None, state="failed", reason="OOM")], "No run has finished"),
        ([run(1.5)], "rmsnorm · pre ends at 1.5000 nats per token (1 seed); no other arm"),
        (
            [run(1.5), run(1.6, config={"trainer": {"max_steps": 200}})],
            "No two arms that can be compared share their other settings",
        ),
        (
            [run(1.5), run(1.6, *POST, 0), run(None, *POST, 1)],
            "Fewer than two arms can be compared: the others mostly diverged, are below the",
        ),
        (
            [run(1.5), run(1.6, *POST, config={"allow_leak": True})],
            "Fewer than two arms can be compared",
        ),
        (
            [run(1.5, data_digest="a"), run(1.6, *POST, data_digest="b")],
            "No two arms that can be compared share their other settings",
        ),
    ],
)
def test_nothing_to_compare_is_said(runs: list[Run], said: str) -> None:
    assert judged(runs).sentences[0].startswith(said)


def test_two_hundred_arms_are_a_handful_of_sentences() -> None:
    rng = np.random.default_rng(0)
    losses = 1.5 + np.arange(200)[:, None] / 100 + rng.normal(0, 1e-6, size=(200, 3))
    arms = [arm(list(row), f"norm{at}", "pre") for at, row in enumerate(losses)]
    found = judged(*arms)
    assert len(found.comparisons) == 199
    (sentence,) = found.sentences
    assert sentence.startswith("norm0 · pre has the lowest mean, 1.5000 ± ")
    assert "lower than 199 of 199 others" in sentence
    assert len(sentence) < 400


def many_arms(count: int, *, widths: int = 1) -> StudyResult:
    rng = np.random.default_rng(0)
    runs = []
    for width in range(widths):
        for at in range(count):
            losses = 1.5 + at / 100 + rng.normal(0, 1e-3, 3)
            runs += arm(list(losses), f"norm{at}", "pre", config={"model": {"width": width}})
    return judged(runs)


def printed(result: StudyResult, width: int) -> str:
    table = comparisons_table(result)
    assert table is not None
    console = Console(width=width, record=True, file=StringIO())
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("widths", [1, 3])
def test_where_sentences_leave_numbers_out_the_terminal_has_those_of_the_report(
    width: int, widths: int
) -> None:
    result = many_arms(7, widths=widths)
    text = printed(result, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    report = report_comparisons(result)
    assert report is not None
    assert len(report.rows) == 6 * widths
    titles = [column.title for column in report.columns[-5:]]
    assert titles == ["lower by", "p", "seeds paired", "outcome", "detectable"]
    # As a list in a narrow window, a number stands behind its name and not in a column.
    words = " ".join(text.replace("·", " ").split())
    for row in report.rows:
        for cell in row[-5:]:
            assert cell.text in words
        assert row[1].text.replace("·", " ").split()[0] in words
    if widths > 1:
        assert [f"width={at}" in text for at in range(widths)] == [True] * widths


def test_the_table_of_many_comparisons_says_that_it_is_a_part() -> None:
    text = printed(many_arms(50), 80)
    assert "The first 40 of 49; report.html has all." in text
    assert len([line for line in text.splitlines() if line.startswith("   norm")]) == 40


def test_comparisons_that_are_sentences_are_no_table_unless_an_experiment_has_its_own() -> None:
    few = many_arms(MOST_SENTENCES + 1)
    assert len(few.comparisons) == MOST_SENTENCES
    assert comparisons_table(few) is None
    assert comparisons_table(replace(few, story=("In its own words.",))) is not None
    assert comparisons_table(many_arms(1)) is None


def test_many_facets_are_counted() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for width in range(30):
        config = {"model": {"width": width}}
        low = 1.5 + rng.normal(0, 1e-5, 3)
        high = low + (0.5 if width < 10 else 0.0) + np.array([-1e-5, 0, 1e-5])
        runs += arm(list(low), *PRE, config=config) + arm(list(high), *POST, config=config)
    found = judged(runs)
    assert found.sentences[0].startswith(
        "Of 30 combinations of settings, the lowest arm ends lower than another in 10, and in 20 "
    )
    assert len(found.sentences) <= 6


def test_many_facets_are_counted_by_each_outcome_and_by_the_margin() -> None:
    noise, runs = np.array([-1e-4, 0, 1e-4]), []
    for width in range(12):
        config = {"model": {"width": width}}
        higher = [0.5, 0.005, 0.0][width // 3] if width < 9 else 0.01
        low = 1.5 + noise[::-1] * (1 if width < 9 else 300)
        runs += arm(list(low), *PRE, config=config)
        runs += arm(list(low + higher + noise * (1 if width < 9 else 300)), *POST, config=config)
    study = Study(Path("study"), runs)
    (first, *_) = analyse_study(study, margin=0.01).sentences
    assert first.startswith(
        "Of 12 combinations of settings, the lowest arm ends lower than another in 6, 3 of them by "
        "less than the margin of 0.01, in 3 all others are the same within 0.01, and in 3 that "
        "cannot be told; most often, in "
    )


def test_a_summary_of_many_arms_names_every_outcome() -> None:
    runs = arm([1.90, 1.91, 1.92, 1.0], "best", "pre")
    runs += arm([1.80, 1.8101, 1.82], "higher", "pre")
    for name, above in (("a", 0.5), ("b", 0.6), ("c", 0.7), ("d", 0.8)):
        runs += arm(list(np.array([1.90, 1.91, 1.92, 1.0]) + above), name, "pre")
    runs += arm([1.905, 1.9151, 1.925, 1.005], "near", "pre")
    study = Study(Path("study"), runs)
    (told, *_) = analyse_study(study, margin=0.01).sentences
    assert "it ends lower than 5 of 6 others (" in told
    assert (
        "and is higher than 1 over their common seeds (higher · pre), 1 of them by less than the "
        "margin of 0.01." in told
    )


def test_what_differs_beside_the_arms_is_a_warning() -> None:
    pre = arm(
        [1.90, 1.91, 1.92], *PRE,
        hardware={"threads": 1, "kernels": "DEFAULT"}, git=GitState("a" * 40),
    )  # fmt: skip
    post = arm(
        [1.95, 1.96, 1.97], *POST, precision="bf16-mixed", device="cuda (y)",
        hardware={"threads": 2, "kernels": "AVX512"}, git=GitState("b" * 40, dirty=True),
    )  # fmt: skip
    pre[0].record.versions = {"torch": "2.13.0", "numpy": "2"}
    post[0].record.versions = {"torch": "2.9.0", "numpy": "2"}
    told = judged(pre, post).warnings
    for words in (
        "differ in precision: bf16-mixed in 3 runs; 32-true in 3 runs",
        "differ in device: cuda (y) in 3 runs; cpu (x) in 3 runs",
        "differ in threads: 2 in 3 runs; 1 in 3 runs",
        "differ in CPU kernels: DEFAULT in 3 runs; AVX512 in 3 runs",
        "differ in versions: torch 2.9.0 in 1 run; torch 2.13.0 in 1 run",
        "differ in commit: bbbbbbb with changes in 3 runs; aaaaaaa in 3 runs",
    ):
        assert any(words in warning for warning in told), (words, told)
    assert len(told) == 6


def test_different_budgets_are_not_compared_and_that_is_said() -> None:
    quick = arm([1.90, 1.91], *PRE, choices={"norm": "rmsnorm", "budget": "quick"})
    full = arm(
        [1.80, 1.81], *POST, choices={"norm": "rmsnorm", "budget": "full"},
        config={"trainer": {"max_steps": 5000}},
    )  # fmt: skip
    found = judged(quick, full)
    assert found.comparisons == ()
    assert found.warnings == (
        "Runs of different budgets are not compared with each other: 100 steps; 5000 steps.",
    )


def test_missing_failed_interrupted_running_and_damaged_runs_are_named() -> None:
    runs = arm([1.90, 1.91, 1.92], *PRE) + arm([1.95, 1.96, None], *POST)
    for at, (state, reason) in enumerate([("failed", "disk full"), ("interrupted", None)], 3):
        runs.append(run(1.9, *PRE, at, state=state, reason=reason, step=7))
    runs[3].complete = False
    runs[4].record.state = "running"
    told = " ".join(judged(runs).warnings)
    assert "Failed, not counted: rmsnorm-pre-s3 (disk full)." in told
    assert "rmsnorm-pre-s4 at step 7" in told
    assert "Still running, not counted yet: rmsnorm-post-s1." in told
    assert "with them the curves: rmsnorm-post-s0." in told
    assert "rmsnorm · post lacks seed=1" in told


def test_probes_in_some_runs_are_a_warning_about_speed() -> None:
    runs = arm([1.90, 1.91, 1.92], *PRE)
    assert not judged(runs).warnings
    runs[0].events.last_steps["probe/rms/block_01"] = 7
    (told,) = judged(runs).warnings
    assert "Probes were on in 1 of 3 runs" in told


def test_runs_of_one_seed_count_once() -> None:
    again = run(2.0, config={"data": {"seed": 1}})
    (only,) = group_runs([run(1.0), again, run(3.0, seed=1)])
    assert losses_by_seed(only) == {0: 1.5, 1: 3.0}


def test_small_numbers_keep_two_digits() -> None:
    assert format_interval(0.0207, 0.0064) == "0.0207 ± 0.0064"
    assert format_interval(0.00002, 0.000013) == "0.000020 ± 0.000013"
    assert format_interval(0.1, math.nan) == "0.1000"
    assert format_interval(0.0, 0.0) == "0.0000 ± 0.0000"


def test_unequal_seeds_are_not_told_by_their_means() -> None:
    """At the seed that both have, the arm with the lowest mean is the higher one."""
    result = judged(arm([2.0624, 2.0412], *PRE), arm([2.0589], *POST))
    (sentence,) = [line for line in result.sentences if "lowest" in line]
    assert "rmsnorm · pre has the lowest mean over its seeds, 2.0518" in sentence
    assert "at equal seeds it is 0.0035 above rmsnorm · post" in sentence


def test_what_is_below_the_floor_is_compared_with_nothing() -> None:
    levels = {PRE: 0.5, POST: 1.6, LAYER: 1.7}
    arms = [
        arm([level, level + 0.01, level + 0.02], *words, floor=1.46)
        for words, level in levels.items()
    ]
    result = judged(*arms)
    assert {pair.best.name for pair in result.comparisons} == {"rmsnorm · post"}
    assert any("Below the floor" in line and "rmsnorm · pre" in line for line in result.warnings)
    assert "Below the floor" not in " ".join(judged(arm([1.4601], *PRE, floor=1.46)).warnings)


@pytest.mark.parametrize(("scheme", "warned"), [("normal", True), ("xavier", False)])
def test_a_placement_that_assumes_other_weights_is_a_warning(scheme: str, warned: bool) -> None:
    config = {"model": {"init": {"scheme": scheme}}}
    warnings = judged(arm([1.5, 1.6], "rmsnorm", "deepnorm", config=config)).warnings
    assert any("factors of deepnorm were derived for Xavier" in line for line in warnings) == warned


def test_what_was_trained_without_the_check_for_leaks_is_compared_with_nothing() -> None:
    leak = arm([1.5, 1.51, 1.52], *PRE, config={"allow_leak": True})
    result = judged(leak, arm([1.6, 1.61, 1.62], *POST), arm([1.7, 1.71, 1.72], *LAYER))
    (pair,) = result.comparisons
    assert [arm.name for arm in (pair.best, pair.other)] == ["rmsnorm · post", "layernorm · pre"]
    assert any("allow_leak=true" in line for line in result.warnings)
    assert result.plan.study == "INVALID: study"
