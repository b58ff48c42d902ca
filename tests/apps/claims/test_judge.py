"""A word follows from where an interval lies; every kind of test on numbers that are known."""

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claim_evidence import judge_claim, make_arm, make_claim_data, make_run
from normlab.apps.claims.claim import (
    TESTS,
    Diverges,
    Exact,
    Level,
    Lower,
    Parity,
    Quantity,
    Ratio,
    Regime,
    Sensitivity,
    Slope,
    Test,
    Value,
)
from normlab.apps.claims.estimates import DivergenceCount, share_difference, wilson_interval
from normlab.apps.claims.judge import decide_verdict, verdict_ranges
from normlab.apps.claims.record import MEANINGS, Verdict
from normlab.apps.claims.runs import ClaimData
from normlab.archive import tags
from normlab.archive.study import Run

YES, ABSENT, NO, UNKNOWN, VACUOUS, OUTSIDE, UNMEASURED = MEANINGS
A, B = "norm=rmsnorm", "norm=layernorm"


def apart(difference: float, spread: float = 0.001, seeds: int = 3) -> ClaimData:
    """Arm a that far above arm b."""
    bases = [2.0 + 0.125 * seed for seed in range(seeds)]
    noise = [spread * (seed - (seeds - 1) / 2) for seed in range(seeds)]
    a = [base + difference + extra for base, extra in zip(bases, noise, strict=True)]
    return ClaimData(tuple(make_arm("rmsnorm", a) + make_arm("layernorm", bases)))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-2.0, -1.0, YES),
        (-1.0, -0.3, YES),  # touches the border, which belongs to the claim
        (-0.001, -0.0005, ABSENT),  # below zero, and smaller than the margin
        (-1.0, -0.1, UNKNOWN),
        (0.1, 0.2, ABSENT),
        (0.1, 0.3, ABSENT),  # touches
        (0.1, 0.31, UNKNOWN),  # from no effect to the other side
        (0.5, 0.6, NO),
        (math.nan, math.nan, UNKNOWN),
    ],
)
def test_the_word_is_where_the_interval_lies(low: float, high: float, said: str) -> None:
    assert decide_verdict(low, high, verdict_ranges(Lower(A, B, 0.3))) == said


def test_every_kind_of_test_is_among_those_whose_regions_are_tried() -> None:
    assert {type(test) for test in EVERY_KIND} == set(TESTS.values())


EVERY_KIND = [
    Lower(A, B, 0.1), Sensitivity(A, B, 0.1), Parity(A, B, 0.1), Diverges(A, B, 0.1),
    Level(A, 0.2, 0.4), Slope("x", 0.5, 0.1), Slope("x", 0.0, 0.1), Ratio("x", 0.03, 1.07, 2.8),
    Ratio("x", 0.03, high=0.9), Value("x", low=0.2), Exact("x", 1e-6),
]  # fmt: skip
ENDS = st.floats(-5, 5, allow_nan=False)


@pytest.mark.parametrize("test", EVERY_KIND, ids=lambda test: type(test).__name__)
@given(ends=st.tuples(ENDS, ENDS).map(sorted))
def test_regions_do_not_overlap_and_cover_everything(test: Test, ends: list[float]) -> None:
    """Of an interval with a width, one rule at most is true; what none takes cannot be told."""
    low, high = ends
    ranges = verdict_ranges(test)
    taken = {
        YES: ranges.claimed.contains(low, high),
        ABSENT: ranges.absent is not None and ranges.absent.contains(low, high),
        NO: any(outside.contains(low, high) for outside in ranges.refuted),
    }
    word = decide_verdict(low, high, ranges)
    if word == UNKNOWN:
        assert not any(taken.values())
    else:
        assert taken[word]
    if low < high:
        assert not (taken[YES] and (taken[NO] or taken[ABSENT]))
    # The same interval a little narrower is never judged the other way round.
    middle = (low + high) / 2
    narrower = decide_verdict((low + middle) / 2, (high + middle) / 2, ranges)
    assert word in (UNKNOWN, narrower) or {word, narrower} == {NO, ABSENT}


@pytest.mark.parametrize("test", [Parity(A, B, 0.1), Level(A, 0.2, 0.4), Exact("x", 1e-6)])
def test_what_claims_no_effect_is_never_not_reproduced(test: Test) -> None:
    assert verdict_ranges(test).absent is None


def learning(a: dict[float, float], b: dict[float, float], **record: Any) -> ClaimData:
    """Two arms over learning rates, three seeds each that end at these losses."""
    runs = []
    for norm, losses in (("rmsnorm", a), ("layernorm", b)):
        for rate, loss in losses.items():
            runs += make_arm(norm, [loss - 0.001, loss, loss + 0.002], lr=rate)
    for run in runs:
        for key, value in record.items():
            setattr(run.record, key, value)
    return ClaimData(tuple(runs))


U_CURVE = {1e-3: 1.9, 1e-2: 1.7, 1e-1: 2.0}


@pytest.mark.parametrize("kind", [Lower, Parity, Sensitivity])
def test_arms_that_have_not_learned_make_a_claim_vacuous(kind: type[Lower]) -> None:
    stuck = {rate: loss + 0.3 for rate, loss in U_CURVE.items()}
    data = learning(stuck, stuck, unigram=2.079, floor=1.598)
    one = judge_claim(kind(A, B, 0.02), data)
    assert one.word == VACUOUS
    assert "the lowest loss is 2.0003" in one.reason
    assert "2.0790" in one.reason
    assert one.value is not None
    # A quarter of the way from 2.079 to 1.598 is 1.959; without a floor a quarter of a nat counts.
    assert judge_claim(kind(A, B, 0.02), learning(U_CURVE, stuck, unigram=2.079)).word != VACUOUS
    assert judge_claim(kind(A, B, 0.02), learning(stuck, stuck)).word != VACUOUS
    # 2.15 − 2.0 is less than a quarter of a nat, 2.3 − 2.0 is more.
    assert judge_claim(kind(A, B, 0.02), learning(stuck, stuck, unigram=2.15)).word == VACUOUS
    assert judge_claim(kind(A, B, 0.02), learning(stuck, stuck, unigram=2.3)).word != VACUOUS


def test_where_both_arms_must_have_learned_one_that_has_not_is_out_of_regime() -> None:
    stuck = {rate: loss + 0.3 for rate, loss in U_CURVE.items()}
    data = learning(U_CURVE, stuck, unigram=2.079)
    both = Regime(1, "a paper")
    verdict = judge_claim(Lower(A, B, 0.02), data, regime=both)
    assert verdict.word == OUTSIDE
    assert verdict.reason.startswith("the claim is about arms that learn, and norm=layernorm has")
    assert verdict.value == pytest.approx(-0.3)
    # Without a regime one is enough.
    assert judge_claim(Lower(A, B, 0.02), data).word == YES


@pytest.mark.parametrize("kind", [Lower, Parity, Sensitivity])
@pytest.mark.parametrize(("end", "name"), [(1e-4, "smallest"), (1.0, "largest")])
def test_an_optimum_at_the_end_of_the_grid_is_not_judged(
    kind: type[Lower], end: float, name: str
) -> None:
    one = judge_claim(kind(A, B, 0.02), learning(U_CURVE | {end: 1.5}, U_CURVE | {end: 2.1}))
    assert one.word == UNKNOWN
    assert f"{A} is best at the {name} learning rate of its grid" in one.reason
    assert one.value is not None


def test_a_single_rate_has_no_end() -> None:
    one = judge_claim(Lower(A, B, 0.02), learning({1e-3: 1.5}, {1e-3: 2.0}))
    assert one.word == YES


def test_of_two_rates_each_is_an_end() -> None:
    one = judge_claim(Lower(A, B, 0.02), learning({1e-3: 1.5, 1e-2: 1.6}, {1e-3: 2.0, 1e-2: 1.9}))
    assert one.word == UNKNOWN
    assert f"{A} is best at the smallest learning rate of its grid" in one.reason


def test_what_is_compared_in_the_stream_is_of_arms_that_have_learned() -> None:
    grown = {"growth": 1.0, "variances": (1.0, 2.0, 3.0)}
    runs = make_arm("rmsnorm", [2.0] * 3, **grown) + make_arm("layernorm", [1.7] * 3, **grown)
    for run in runs:
        run.record.unigram = 2.079
    test = Lower(A, B, 0.1, Quantity.acceleration)
    judged = judge_claim(test, ClaimData(tuple(runs)), regime=Regime(1, "a paper"))
    assert judged.word == OUTSIDE
    assert judged.reason.startswith("the claim is about arms that learn, and norm=rmsnorm has not")


def test_a_regime_names_arms_that_have_learned_only_where_that_is_asked() -> None:
    regime = Regime(500, "a paper")
    learned = "runs of at least 500 steps, where both arms have learned (a paper)"
    assert judge_claim(Lower(A, B, 0.02), ClaimData(), regime=regime).regime == learned
    for test in (Diverges(A, B), Level(A, 1.0, 2.0)):
        judged = judge_claim(test, ClaimData(), regime=regime)
        assert judged.regime == "runs of at least 500 steps (a paper)"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (ClaimData(problem="there is no file"), UNMEASURED),
        (ClaimData(), UNMEASURED),
        (ClaimData((make_run("dyt", 0, 1.0),)), UNMEASURED),  # of another arm
        (ClaimData((make_run("rmsnorm", 0, 1.0, state="running"),)), UNMEASURED),
        (ClaimData((make_run("rmsnorm", 0, 1.0),)), UNKNOWN),  # the other arm is missing
        (ClaimData(tuple(make_arm("rmsnorm", [None]))), UNKNOWN),
        (ClaimData((make_run("rmsnorm", 0, 1.0, state="failed"),)), UNKNOWN),
    ],
)
def test_a_claim_of_which_nothing_was_trained_is_not_measured(data: ClaimData, word: str) -> None:
    verdict = judge_claim(Lower(A, B, 0.02), data)
    assert (verdict.word, verdict.value) == (word, None)
    assert verdict.reason


def test_a_claim_without_its_values_is_not_measured_and_with_others_than_numbers_is() -> None:
    assert judge_claim(Value("x", low=1.0), make_claim_data(y=[2.0])).word == UNMEASURED
    assert judge_claim(Value("x", low=1.0), make_claim_data()).word == UNMEASURED
    assert judge_claim(Value("x", low=1.0), make_claim_data(x=[math.nan])).word == UNKNOWN


def test_where_shorter_runs_have_ended_the_claim_is_measured() -> None:
    arms = [
        make_run(norm, seed, 1.0, steps=steps, state=state)
        for norm in ("rmsnorm", "layernorm")
        for seed in range(3)
        for steps, state in ((100, "finished"), (200, "running"))
    ]
    verdict = judge_claim(Lower(A, B, 0.02), ClaimData(tuple(arms)))
    assert [horizon.word for horizon in verdict.horizons] == [ABSENT, UNKNOWN]
    none = [run for run in arms if run.record.state == "running"]
    verdict = judge_claim(Lower(A, B, 0.02), ClaimData(tuple(none)))
    assert [horizon.word for horizon in verdict.horizons] == [UNMEASURED]


def test_every_word_has_a_meaning() -> None:
    assert set(MEANINGS) == set(get_args(Verdict))


@pytest.mark.parametrize(
    ("difference", "spread", "said"),
    [
        (-0.1, 0.001, YES),
        (-0.01, 0.001, ABSENT),  # on the claimed side, and too small to matter
        (0.01, 0.001, ABSENT),  # on the other side, and too small to matter
        (0.1, 0.001, NO),
        (-0.1, 0.2, UNKNOWN),
        (0.0, 0.001, ABSENT),
        (0.0, 0.0, ABSENT),  # the same to the bit is not lower
    ],
)
def test_lower(difference: float, spread: float, said: str) -> None:
    assert judge_claim(Lower(A, B, 0.02), apart(difference, spread)).word == said


@pytest.mark.parametrize(
    ("difference", "spread", "said"),
    [
        (0.0, 0.001, YES),
        (0.015, 0.001, YES),
        (0.019, 0.001, UNKNOWN),  # reaches over the margin
        (0.1, 0.001, NO),
        (-0.1, 0.001, NO),  # better is not the same either
        (0.0, 0.1, UNKNOWN),
    ],
)
def test_parity(difference: float, spread: float, said: str) -> None:
    assert judge_claim(Parity(A, B, 0.02), apart(difference, spread)).word == said


def test_the_interval_is_the_paired_one() -> None:
    """Seeds differ by 0.125, arms by a constant: paired, the interval has no width."""
    one = judge_claim(Lower(A, B, 0.02), apart(-0.5, 0.0))
    assert (one.value, one.low, one.high) == (-0.5, -0.5, -0.5)
    assert one.seeds == (0, 1, 2)
    assert one.runs.finished == 6
    # t(2) = 4.303 times 0.25 / √3
    wide = judge_claim(Lower(A, B, 0.02), apart(0.0, 0.25))
    assert wide.high == pytest.approx(4.302653 * 0.25 / math.sqrt(3), rel=1e-6)


def test_one_seed_cannot_tell() -> None:
    one = judge_claim(Lower(A, B, 0.02), apart(-1.0, seeds=1))
    assert one.word == UNKNOWN
    assert "one seed" in one.reason
    assert one.value == -1.0
    assert one.low is None


def rates(norm: str, losses: dict[float, list[float | None]]) -> list:
    return [run for lr, some in losses.items() for run in make_arm(norm, some, lr=lr)]


def test_an_arm_is_taken_where_it_is_lowest_and_every_seed_finished() -> None:
    a = rates("rmsnorm", {1e-3: [2.0, 2.1, 2.2], 1e-2: [1.0, None, 1.0], 1e-1: [None] * 3})
    b = rates("layernorm", {1e-3: [2.5, 2.6, 2.7], 1e-2: [2.25, 2.35, 2.45]})
    one = judge_claim(Lower(A, B, 0.02), ClaimData(tuple(a + b)))
    assert one.value == pytest.approx(-0.25)
    assert one.basis == "3 pairs of seeds, a at lr=1e-3, b at lr=1e-2"
    assert (one.runs.finished, one.runs.diverged) == (11, 4)


def test_a_setting_is_chosen_on_other_windows_than_it_is_compared_on() -> None:
    def with_halves(norm: str, lr: float, selection: float, test: float) -> list[Run]:
        runs = make_arm(norm, [(selection + test) / 2] * 3, lr=lr)
        for run in runs:
            run.record.final.selection_loss, run.record.final.test_loss = selection, test
        return runs

    runs = [
        *with_halves("a", 1e-3, 1.0, 1.6),
        *with_halves("a", 1e-2, 1.2, 1.2),
        *with_halves("b", 1e-3, 1.4, 1.5),
    ]
    judged = judge_claim(Lower("norm=a", "norm=b", 0.02), ClaimData(tuple(runs)))
    assert (judged.basis, judged.value) == (
        "3 pairs of seeds, a at lr=1e-3, b at lr=1e-3", pytest.approx(0.1),
    )  # fmt: skip
    for run in runs:
        run.record.final.test_loss = None
    judged = judge_claim(Lower("norm=a", "norm=b", 0.02), ClaimData(tuple(runs)))
    assert (judged.basis, judged.value) == (
        "3 pairs of seeds, a at lr=1e-2, b at lr=1e-3", pytest.approx(-0.25),
    )  # fmt: skip


def test_where_nothing_is_chosen_all_validation_windows_count() -> None:
    a, b = (make_arm(norm, [loss] * 3) for norm, loss in (("a", 1.5), ("b", 1.6)))
    for run in a:
        run.record.final.selection_loss, run.record.final.test_loss = 1.2, 1.8
    for run in b:
        run.record.final.selection_loss, run.record.final.test_loss = 1.5, 1.7
    data = ClaimData((*a, *b))
    assert judge_claim(Lower("norm=a", "norm=b", 0.02), data).value == pytest.approx(-0.1)
    assert judge_claim(Level("norm=a", 1.4, 1.55), data).value == pytest.approx(1.5)
    for run in (more := make_arm("b", [2.0] * 3, lr=1e-2)):
        run.record.final.selection_loss, run.record.final.test_loss = 2.0, 2.0
    data = ClaimData((*a, *b, *more))
    assert judge_claim(Lower("norm=a", "norm=b", 0.02), data).value == pytest.approx(0.1)


def test_an_arm_that_diverged_everywhere_takes_the_basis_away() -> None:
    runs = rates("rmsnorm", {1e-3: [None, 2.0, 2.0]}) + make_arm("layernorm", [2.0, 2.0, 2.0])
    one = judge_claim(Lower(A, B, 0.02), ClaimData(tuple(runs)))
    assert one.word == UNKNOWN
    assert one.reason == "1 of 3 runs with norm=rmsnorm diverged, at least one at every setting"


@pytest.mark.parametrize(("state", "why"), [("failed", "it broke"), ("running", "not trained yet")])
def test_a_run_that_has_not_ended_takes_the_basis_away(state: str, why: str) -> None:
    runs = [*make_arm("rmsnorm", [1.0, 1.0]), make_run("rmsnorm", 2, None, state=state)]  # type: ignore[arg-type]
    one = judge_claim(
        Lower(A, B, 0.02), ClaimData(tuple(runs + make_arm("layernorm", [2.0, 2.0, 2.0])))
    )
    assert one.word == UNKNOWN
    assert one.reason == f"1 of 3 runs with norm=rmsnorm have not ended ({why})"
    assert one.runs.failed + one.runs.missing == 1


def test_a_run_of_another_arm_that_failed_does_no_harm() -> None:
    runs = (*apart(-0.5).runs, make_run("dyt", 0, None, state="failed"))
    assert judge_claim(Lower(A, B, 0.02), ClaimData(runs)).word == YES


def test_no_such_run_and_no_evidence_are_told() -> None:
    assert "no run has norm=dyt" in judge_claim(Lower("norm=dyt", B, 0.02), apart(0)).reason
    assert judge_claim(Lower(A, B, 0.02), ClaimData(problem="no data")).reason == "no data"
    assert (
        "both match one arm of the claim and have the same seed"
        in judge_claim(
            Lower(A, B, 0.02),
            ClaimData(
                (*apart(0).runs, make_run("rmsnorm", 0, 1.0, config={"placement": {"qk": True}}))
            ),
        ).reason
    )


@pytest.mark.parametrize(
    ("variances", "expected"),
    [
        ([5.0, 6.0, 7.0, 8.0, 9.0], 0.0),  # linear, however high the first block is
        ([1.0, 2.0, 4.0, 8.0, 16.0], math.log(12 / 3)),  # doubling over two blocks and two
        ([4.0, 8.0, 10.0, 11.0, 11.5, 99.0], math.log(1.5 / 6)),  # an odd block is left out
    ],
)
def test_acceleration_compares_the_halves_of_the_blocks(
    variances: list[float], expected: float
) -> None:
    runs = [make_run("rmsnorm", seed, 1.0, variances=variances) for seed in range(3)]
    verdict = judge_claim(Level(A, -9.0, 9.0, Quantity.acceleration), ClaimData(tuple(runs)))
    assert verdict.value == pytest.approx(expected)


def test_growth_is_the_power_of_the_block_with_which_the_stream_gains_variance() -> None:
    a = [make_run("rmsnorm", seed, 1.0, growth=0.25) for seed in range(3)]
    b = [make_run("layernorm", seed, 1.0, growth=0.5) for seed in range(3)]
    one = judge_claim(Lower(A, B, 0.02, Quantity.growth), ClaimData(tuple(a + b)))
    assert one.value == pytest.approx(-0.25)
    assert judge_claim(Level(B, 0.4, 0.6, Quantity.growth), ClaimData(tuple(b))).word == YES
    assert judge_claim(Level(B, 0.4, 0.6, Quantity.growth), apart(0)).word == UNKNOWN


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ({1e-3: [1.0] * 12, 1e-2: [None] * 12}, {1e-3: [1.0] * 12, 1e-2: [1.0] * 12}, YES),
        # Three runs of three against none are beyond zero, and not beyond half, whatever comes out.
        ({1e-3: [1.0] * 3, 1e-2: [None] * 3}, {1e-3: [1.0] * 3, 1e-2: [1.0] * 3}, OUTSIDE),
        ({1e-3: [1.0] * 3, 1e-2: [1.0] * 3}, {1e-3: [1.0] * 3, 1e-2: [1.0] * 3}, OUTSIDE),
        ({1e-3: [1.0] * 12, 1e-2: [1.0] * 12}, {1e-3: [1.0] * 12, 1e-2: [1.0] * 12}, ABSENT),
        ({1e-3: [1.0] * 12, 1e-2: [1.0] * 12}, {1e-3: [1.0] * 12, 1e-2: [None] * 12}, NO),
        ({1e-3: [1.0] * 6 + [None] * 2}, {1e-3: [1.0] * 8}, UNKNOWN),
        # At one rate eight runs of eight can be surely more than half, seven of seven cannot.
        ({1e-3: [None] * 8}, {1e-3: [1.0] * 8}, YES),
        ({1e-3: [None] * 7}, {1e-3: [1.0] * 7}, OUTSIDE),
    ],
)
def test_diverges(a: dict, b: dict, said: str) -> None:
    runs = rates("none", a) + rates("layernorm", b)
    assert judge_claim(Diverges("norm=none", B), ClaimData(tuple(runs))).word == said


@pytest.mark.parametrize(
    ("seeds", "grid", "begin"),
    [
        (3, [1e-3], "0.21"),
        (3, [1e-3, 1e-2], "0.11"),
        (7, [1e-3], "0.499"),  # with two decimals it would read as the margin
    ],
)
def test_a_margin_that_no_share_can_reach_is_told_with_what_can_be_reached(
    seeds: int, grid: list[float], begin: str
) -> None:
    runs = rates("none", {rate: [None] * seeds for rate in grid})
    runs += rates("layernorm", {rate: [1.0] * seeds for rate in grid})
    reason = judge_claim(Diverges("norm=none", B), ClaimData(tuple(runs))).reason
    assert f"would begin at {begin}, below the margin 0.5;" in reason


def test_the_rate_is_named_and_paid_for() -> None:
    """Picked among two rates, the interval is that of 97.5 %."""
    runs = rates("none", {1e-3: [1.0] * 3, 1e-2: [None] * 3}) + rates(
        "layernorm", {1e-3: [1.0] * 3, 1e-2: [1.0] * 3}
    )
    one = judge_claim(Diverges("norm=none", B), ClaimData(tuple(runs)))
    assert one.basis == (
        "3 of 3 against 0 of 3 diverged at lr=1e-2, "
        "the one of 2 where they differ most (Bonferroni)"
    )
    assert one.low == pytest.approx(
        share_difference(DivergenceCount(3, 3), DivergenceCount(0, 3), 0.975)[1]
    )


def test_of_a_single_rate_there_are_no_others_to_count() -> None:
    for losses, basis in (
        ({1e-3: [1.0] * 8}, "0 of 8 against 0 of 8 diverged at lr=1e-3"),
        ({1e-3: [1.0] * 8, 1e-2: [1.0] * 8}, "0 of 16 against 0 of 16 diverged at all rates"),
    ):
        runs = rates("none", losses) + rates("layernorm", losses)
        verdict = judge_claim(Diverges("norm=none", B), ClaimData(tuple(runs)))
        assert verdict.basis.startswith(basis)
        assert ("together" in verdict.basis) == (len(losses) > 1)


@pytest.mark.parametrize("variances", [(1.0, 2.0), (1.0, 2.0, 2.0)])
@pytest.mark.parametrize("quantity", [Quantity.acceleration, Quantity.growth])
def test_a_stream_that_says_nothing_of_its_growth_is_not_judged(
    quantity: Quantity, variances: tuple[float, ...]
) -> None:
    """Two blocks have no halves, and a half that adds nothing no logarithm.

    Without the variance before the first block nothing says what the blocks added.
    """
    runs = make_arm("rmsnorm", [2.0] * 3, variances=variances)
    runs += make_arm("layernorm", [2.0] * 3, variances=variances)
    for test, reason in (
        (Level(A, 0.4, 0.6, quantity), "what was measured is not finite"),
        (Lower(A, B, 0.1, quantity), "the arms have no seed in common for which this is known"),
    ):
        verdict = judge_claim(test, ClaimData(tuple(runs)))
        assert (verdict.word, verdict.value, verdict.reason) == (UNKNOWN, None, reason)


def test_a_pair_that_is_not_finite_is_not_among_the_seeds() -> None:
    a = make_arm("rmsnorm", [2.0] * 3, variances=(1.0, 2.0, 3.0))
    b = make_arm("layernorm", [2.0] * 3, variances=(1.0, 2.0, 4.0))
    del b[1].events.scalars[tags.probe_tag(tags.STREAM_VARIANCE, "block_02/feedforward")]
    test = Lower(A, B, 0.1, Quantity.acceleration)
    verdict = judge_claim(test, ClaimData((*a, *b)))
    assert verdict.basis.startswith("2 pairs of seeds")
    assert verdict.seeds == (0, 2)


def test_day_and_machine_are_those_of_the_runs() -> None:
    runs = apart(0).runs
    assert judge_claim(Lower(A, B, 0.02), ClaimData(runs)).date == "2026-11-24"
    for index, run in enumerate(runs):
        run.record.ended = f"2026-11-2{index}T23:50:00+00:00"
        run.record.device, run.record.versions = "cpu (a chip)", {"torch": "2.13.0"}
    runs[0].record.device = "cuda (a card)"
    verdict = judge_claim(Lower(A, B, 0.02), ClaimData(runs))
    assert verdict.date == f"2026-11-2{len(runs) - 1}"
    assert verdict.machine == "cpu (a chip), torch 2.13.0; cuda (a card), torch 2.13.0"
    archived = ClaimData(runs, date="2026-11-01", machine="a machine of files")
    verdict = judge_claim(Lower(A, B, 0.02), archived)
    assert (verdict.date, verdict.machine) == ("2026-11-01", "a machine of files")


def test_shares_have_the_intervals_of_the_literature() -> None:
    # Newcombe 1998, table II: 56/70 against 48/80, method 10: 0.0524 to 0.3339.
    counts = DivergenceCount(56, 70), DivergenceCount(48, 80)
    assert share_difference(*counts) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    # Wilson: 81 of 263, 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 3)[0] == 0
    assert wilson_interval(3, 3)[1] == 1


def over(norm: str, high: float, spread: float = 0.01) -> list:
    """Losses 2 at the first rate, a little less at the second, `high` at the third."""
    noise = [-spread, 0.0, spread]
    return rates(norm, {1e-3: [2.0] * 3, 1e-2: [1.99] * 3, 1e-1: [high + one for one in noise]})


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (2.0, 2.6, YES),
        (2.3, 2.31, ABSENT),  # lower by less than the margin
        (2.31, 2.3, ABSENT),
        (2.6, 2.0, NO),
    ],
)
def test_sensitivity(a: float, b: float, said: str) -> None:
    runs = over("rmsnorm", a, 0.0) + over("layernorm", b, 0.0)
    one = judge_claim(Sensitivity(A, B, 0.05), ClaimData(tuple(runs)))
    assert one.word == said
    assert one.value == pytest.approx((a - b) / 3)
    assert one.basis == "3 pairs of seeds, 3 learning rates, best losses 1.990 and 1.990"


@pytest.mark.parametrize("arms", [("rmsnorm", "layernorm"), ("layernorm", "rmsnorm")])
def test_an_arm_that_learns_less_is_not_called_less_sensitive(arms: tuple[str, str]) -> None:
    """The same losses but at the best rate: there one is lower, and so the more sensitive."""
    higher, lower = arms
    runs = [
        *rates(higher, {1e-3: [2.0] * 3, 1e-2: [1.9] * 3, 1e-1: [2.0] * 3}),
        *rates(lower, {1e-3: [2.0] * 3, 1e-2: [1.6] * 3, 1e-1: [2.0] * 3}),
    ]
    one = judge_claim(Sensitivity(A, B, 0.05), ClaimData(tuple(runs)))
    assert abs(one.value) == pytest.approx(0.2)
    assert one.word == UNKNOWN
    assert f"norm={higher} is less sensitive, but at its best rate its loss is 1.9000" in one.reason
    # Below the margin there is nothing to explain.
    assert judge_claim(Sensitivity(A, B, 0.25), ClaimData(tuple(runs))).word == ABSENT


def test_a_diverged_run_counts_as_the_loss_at_initialization() -> None:
    runs = over("rmsnorm", 2.0, 0.0) + rates(
        "layernorm", {1e-3: [2.0] * 3, 1e-2: [1.99] * 3, 1e-1: [None] * 3}
    )
    one = judge_claim(Sensitivity(A, B, 0.05), ClaimData(tuple(runs)))
    assert one.value == pytest.approx(0 - (3.0 - 2.0) / 3)


def test_a_margin_that_no_sensitivity_can_reach_is_out_of_regime() -> None:
    """From 3.0 before training to 1.99 at best, at two of three rates: below 2/3 of 1.01."""
    runs = ClaimData(tuple(over("rmsnorm", 2.3, 0.0) + over("layernorm", 2.0, 0.0)))
    one = judge_claim(Sensitivity(A, B, 1.2), runs)
    assert one.word == OUTSIDE
    assert "no sensitivity can be larger than 0.6733 here" in one.reason
    assert judge_claim(Sensitivity(A, B, 0.9), runs).word == OUTSIDE
    assert judge_claim(Sensitivity(A, B, 0.6), runs).word == ABSENT


def test_sensitivity_needs_rates_and_seeds() -> None:
    assert "3 learning rates" in judge_claim(Sensitivity(A, B, 0.05), apart(0)).reason
    wide = over("rmsnorm", 2.3, 0.4) + over("layernorm", 2.3)
    assert judge_claim(Sensitivity(A, B, 0.05), ClaimData(tuple(wide))).word == UNKNOWN


CASES = [
    (Slope("x", -0.5, 0.1), [-0.5, -0.51, -0.49], YES),
    (Slope("x", -0.5, 0.1), [0.0, 0.01, -0.01], ABSENT),
    (Slope("x", -0.5, 0.1), [-0.8, -0.81, -0.79], NO),
    (Slope("x", -0.5, 0.1), [-0.4, -0.41, -0.39], UNKNOWN),
    (Slope("x", 0.0, 0.1), [0.0, 0.01, -0.01], YES),
    (Slope("x", 0.0, 0.1), [0.5, 0.51, 0.49], NO),
    (Ratio("x", 0.03, low=1.07), [1.2, 1.21, 1.19], YES),
    (Ratio("x", 0.03, low=1.07), [1.0, 1.001, 0.999], ABSENT),
    (Ratio("x", 0.03, low=1.07), [0.5, 0.51, 0.49], NO),
    (Ratio("x", 0.03, low=1.07), [1.07, 1.2, 0.9], UNKNOWN),
    (Ratio("x", 0.03, low=1.07), [1.07, 0.0, 0.9], UNKNOWN),
    (Value("x", low=0.9, high=1.1), [1.0, 1.01, 0.99], YES),
    (Value("x", low=0.9, high=1.1), [2.0, 2.01, 1.99], NO),
    (Value("x", low=0.9, high=1.1), [1.1, 1.2, 1.0], UNKNOWN),
    (Value("x", high=1.1), [-5.0, -5.0, -5.0], YES),
    (Exact("x", 1e-11), [1e-15, 0.0], YES),
    (Exact("x", 1e-11), [1e-15, 1e-3], NO),
    (Value("y", high=1.0), [1.0], UNMEASURED),
]


@pytest.mark.parametrize(("test", "values", "said"), CASES)
def test_measured(test, values: list[float], said: str) -> None:
    assert judge_claim(test, make_claim_data(x=values)).word == said


def test_a_ratio_is_averaged_on_a_logarithm() -> None:
    one = judge_claim(Ratio("x", 0.03, low=1.07), make_claim_data(x=[0.95, 1 / 0.95, 1.0]))
    assert one.value == pytest.approx(1.0)


def test_a_ratio_of_times_that_vary_over_the_measurement_is_not_compared() -> None:
    one = judge_claim(Ratio("x", 0.03, low=1.07), make_claim_data(x=[2.0] * 10 + [2.6] * 10))
    assert one.word == UNKNOWN
    assert "not comparable" in one.reason
    assert judge_claim(Ratio("x", 0.03, low=1.07), make_claim_data(x=[2.0, 2.1] * 10)).word == YES


def test_a_level_has_no_absence() -> None:
    ended = ClaimData(tuple(make_arm("layernorm", [2.0, 2.1, 2.0])))
    assert judge_claim(Level(B, 1.5, 2.5), ended).word == YES
    assert judge_claim(Level(B, 3.0, 3.5), ended).word == NO
    assert judge_claim(Level(B, 1.9, 2.1), ended).word == UNKNOWN
    assert verdict_ranges(Level(B, 1.0, 2.0)).absent is None
