"""A claim is judged at every length of its runs, and only in the regime that it is about."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from claim_evidence import judge_claim, make_arm, make_run
from normlab.apps.claims.claim import Lower, Regime, read_claim
from normlab.apps.claims.regime import (
    BudgetReach,
    LossRange,
    check_attainable,
    describe_shortfall,
    find_reach,
)
from normlab.apps.claims.runs import ClaimData
from normlab.config.compose import composed_config
from normlab.errors import ConfigError
from normlab.study.plan import SweepRequest

A, B = "norm=rmsnorm", "norm=layernorm"
LOWER = Lower(A, B, 0.02)
REACH = {
    "quick": BudgetReach((150,), 8, 64),
    "standard": BudgetReach((250, 500, 1000), 8, 64),
    "full": BudgetReach((1000, 5000), 12, 128),
}


def over_lengths(differences: dict[int, float], missing: int | None = None) -> ClaimData:
    """Arm a that far above arm b at every length; the runs of `missing` have not been trained."""
    runs = []
    for steps, difference in differences.items():
        losses = [2.0, 2.1, 2.2]
        runs += make_arm("rmsnorm", [loss + difference for loss in losses], steps=steps)
        runs += make_arm("layernorm", losses, steps=steps)
    for run in runs:
        if run.record.last_step == missing:
            run.record.state = "running"
    return ClaimData(tuple(runs), reach=REACH)


def test_every_length_has_a_verdict_and_the_longest_in_regime_is_the_claims() -> None:
    verdict = judge_claim(
        LOWER, over_lengths({250: 0.4, 500: 0.01, 1000: -0.3}), regime=Regime(500, "a paper")
    )
    assert [(horizon.steps, horizon.word) for horizon in verdict.horizons] == [
        (250, "out of regime"),
        (500, "not reproduced"),
        (1000, "reproduced"),
    ]
    assert [horizon.value for horizon in verdict.horizons] == pytest.approx([0.4, 0.01, -0.3])
    assert (verdict.word, verdict.value) == ("reproduced", pytest.approx(-0.3))
    assert verdict.regime == "runs of at least 500 steps, where both arms have learned (a paper)"
    assert verdict.runs.finished == 18


def test_a_run_of_unknown_length_counts_at_every_length() -> None:
    data = over_lengths({500: -0.3, 1000: -0.3})
    failed = make_run("rmsnorm", 3, None, state="failed")
    verdict = judge_claim(LOWER, replace(data, runs=(*data.runs, failed)))
    reason = f"1 of 4 runs with {A} have not ended (it broke)"
    assert [(horizon.steps, horizon.word, horizon.reason) for horizon in verdict.horizons] == [
        (500, "cannot tell", reason),
        (1000, "cannot tell", reason),
    ]


def test_a_longest_length_that_was_not_trained_is_not_passed_over() -> None:
    data = over_lengths({500: -0.3, 1000: -0.3}, missing=1000)
    verdict = judge_claim(LOWER, data, regime=Regime(500, "a paper"))
    assert verdict.word == "cannot tell"
    assert "have not ended" in verdict.reason
    assert verdict.horizons[0].word == "reproduced"


def test_lengths_out_of_regime_are_printed_and_name_the_budget_that_reaches_it() -> None:
    verdict = judge_claim(LOWER, over_lengths({250: -0.4, 500: -0.3}), regime=Regime(1000, "x"))
    assert verdict.word == "out of regime"
    assert verdict.value == pytest.approx(-0.3)
    assert verdict.reason == (
        "the claim is about runs of at least 1000 steps, and these have 500 steps, 8 blocks, width "
        "64; budget=standard reaches it"
    )


def test_of_budgets_of_one_size_the_first_in_the_file_is_named() -> None:
    with composed_config([]) as (_, master):
        budgets = {"quick": {}, "standard": {}, "full": {}}
        reach = find_reach(SweepRequest({"trainer.max_steps": 1000}, (), budgets), master)
    short = replace(reach["quick"], steps=(10,))
    assert "budget=standard reaches it" in str(
        describe_shortfall(Regime(1000, "x"), short, {**reach, "quick": short})
    )


def test_sizes_count_as_lengths_do() -> None:
    deep = Regime(1000, "x", depth=12)
    assert "budget=full" in str(describe_shortfall(deep, REACH["standard"], REACH))
    assert describe_shortfall(deep, REACH["full"], REACH) is None
    assert "is not known" in str(describe_shortfall(deep, REACH["quick"], {}))
    small = {"quick": REACH["quick"]}
    assert "no budget reaches it" in str(describe_shortfall(deep, REACH["quick"], small))
    wide = Regime(100, "x", width=65)
    assert describe_shortfall(wide, REACH["standard"], REACH) is not None


def claim_of(tmp_path: Path, test: dict, regime: dict | None = None) -> object:
    raw = {
        "statement": "It is so.",
        "source": "1910.07467",
        "published": {"text": "so"},
        "setup": "there",
        "differs": "here",
        "unit": "nats per token",
        "experiment": "claims_text",
        "test": test,
        **({} if regime is None else {"regime": regime}),
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return read_claim(path)


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        ({"steps": 10}, "regime.source is missing"),
        ({"source": "x"}, "regime.steps is missing"),
        ({"steps": 0, "source": "x"}, "regime.steps=0 is not allowed; it must be 1 or more"),
        ({"steps": 9, "source": "x", "depht": 1}, "did you mean regime.depth?"),
    ],
)
def test_a_wrong_regime_is_one_sentence(tmp_path: Path, regime: dict, message: str) -> None:
    lower = {"kind": "lower", "a": A, "b": B, "margin": 0.02}
    with pytest.raises(ConfigError) as raised:
        claim_of(tmp_path, lower, regime)
    assert message in str(raised.value)


def test_a_regime_that_no_budget_reaches_is_refused(tmp_path: Path) -> None:
    lower = {"kind": "lower", "a": A, "b": B, "margin": 0.02}
    claim = claim_of(tmp_path, lower, {"steps": 20_000, "source": "a paper"})
    with pytest.raises(ConfigError) as raised:
        check_attainable("mine", claim, REACH, None)  # type: ignore[arg-type]
    assert str(raised.value).startswith(
        "claim=mine: its regime is runs of at least 20000 steps, and no budget of "
        "experiment=claims_text reaches it (quick: 150 steps, 8 blocks, width 64; standard: 1000"
    )
    # Where budgets are not known, nothing is refused.
    check_attainable("mine", claim, {}, None)  # type: ignore[arg-type]
    check_attainable("mine", claim_of(tmp_path, lower), REACH, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lower", "parity", "sensitivity"])
def test_a_margin_beyond_all_losses_is_refused(tmp_path: Path, kind: str) -> None:
    """From the floor 1.598 to ln 8 = 2.079 there are 0.481."""
    losses = LossRange(1.598, math.log(8))
    for margin, is_refused in ((0.48, False), (0.482, True)):
        claim = claim_of(tmp_path, {"kind": kind, "a": A, "b": B, "margin": margin})
        if not is_refused:
            check_attainable("mine", claim, {}, losses)  # type: ignore[arg-type]
            continue
        with pytest.raises(ConfigError, match=r"no difference can be larger than 0\.481"):
            check_attainable("mine", claim, {}, losses)  # type: ignore[arg-type]


def test_what_a_budget_reaches_is_read_from_the_experiment() -> None:
    with composed_config(["model.depth=6"]) as (_, master):
        sweep = SweepRequest(
            {"trainer.max_steps": "1000,250"},
            (),
            {"quick": {}, "full": {"model.depth": "4,12", "model.width": 256}},
        )
        reach = find_reach(sweep, master)
        assert reach["quick"] == BudgetReach((250, 1000), 6, master.model.width)
        assert reach["full"] == BudgetReach((250, 1000), 12, 256)
        # A range is not read, and then nothing is known of that budget.
        assert find_reach(SweepRequest({"trainer.max_steps": "range(1,9)"}), master) == {}
        # Without a length of its own an experiment has that of conf/budget.
        assert find_reach(SweepRequest(), master)["standard"].steps == (2000,)
    with composed_config(["trainer.max_steps=77"]) as (_, master):
        assert find_reach(SweepRequest(), master)["full"].steps == (77,)
