"""Evidence for the questions of lesson 5: statistics, losses, what recorded studies say."""

import math
import re

import numpy as np

from learn_content.evidence import Evidence, evidence
from learn_content.learn_pages import ROOT
from normlab.analysis.statistics import Difference, mean_interval, paired_difference

DOCS = ROOT / "docs"


def assert_recorded(page: str, *passages: str) -> None:
    """Fails unless a page of docs/ still states this result of a study."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for passage in passages:
        assert passage in text, f"{page} does not say {passage!r} any more"


def stated_difference(mean: float, half: float) -> Difference:
    """A difference as it is printed; its p follows from whether the interval leaves out zero."""
    p = 0.01 if abs(mean) > half else 0.5
    return Difference(mean, half, p, 3, math.nan)


@evidence("figure-with-crosses")
def figure_with_crosses() -> Evidence:
    assert_recorded(
        "experiments.md",
        "Without a norm, 4 of 5 runs diverge at 1e-2, and 5 of 5 at 0.03.",
        "| no norm | 2.7672 ± 0.0355 | 2.5446 ± 0.0342 | 3e-3 | diverged (5 of 5) |",
        "| layernorm · post | 2.6827 ± 0.4698 | 2.6733 ± 0.4730 | 1e-3 | 3.3443 ± 0.0026 |",
        "uses hardly any context at 3e-3, 1e-2 and 0.03",
    )
    return Evidence([True, False, False, False], numbers={"3.3443": 3.3443, "4": 4, "5": 5})


@evidence("figure-by-depth-and-warm-up")
def figure_by_depth_and_warm_up() -> Evidence:
    text = (DOCS / "experiments.md").read_text(encoding="utf-8")
    settings = re.search(r"^\| 8 \| (\S+) ± \S+ \((\S+), warm-up (\S+)\)", text, re.MULTILINE)
    assert settings is not None
    loss, rate, warm_up = map(float, settings.groups())
    choices = [(1e-3, False), (3e-3, True), (3e-3, False), (1e-3, True)]
    return Evidence([(rate, warm_up > 0) == choice for choice in choices], numbers={"2.4653": loss})


@evidence("uniform-guess")
def uniform_guess() -> Evidence:
    assert_recorded("claims.md", "6.946", "6.913", "6.590", "6.574")
    answer = -math.log(1 / 1000)
    return Evidence(answer=answer, numbers={"6.908": answer, "6.574": 6.574, "6.946": 6.946})


@evidence("one-seed")
def one_seed() -> Evidence:
    difference = paired_difference({0: 1.50}, {0: 1.51})
    unknown = math.isnan(difference.half) and difference.outcome_within() == "cannot tell"
    same = difference.outcome_within(0.01) == "the same"
    return Evidence([difference.outcome_within() == "lower", same, unknown])


@evidence("interval-with-zero")
def interval_with_zero() -> Evidence:
    difference = stated_difference(0.0042, 0.0155)
    outcome = difference.outcome_within()
    low, high = difference.mean - difference.half, difference.mean + difference.half
    return Evidence(
        [outcome == "cannot tell", outcome in ("lower", "higher"), outcome == "the same"],
        numbers={"−0.0113": low, "0.0197": high},
    )


@evidence("same-within-a-margin")
def same_within_a_margin() -> Evidence:
    difference = stated_difference(0.0002, 0.0045)
    outcome = difference.outcome_within(0.01)
    assert difference.outcome_within() == "cannot tell"
    return Evidence(
        [outcome == "cannot tell", outcome in ("lower", "higher"), outcome == "the same"],
        numbers={"−0.0043": 0.0002 - 0.0045, "0.0047": 0.0002 + 0.0045, "0.01": 0.01},
    )


@evidence("proof-for-the-mean")
def proof_for_the_mean() -> Evidence:
    assert math.isnan(mean_interval([0.001])[1])
    noise = np.random.default_rng(0).normal(0, 0.002, (2, 5))
    losses = [dict(enumerate(1.5 + row)) for row in noise]
    shown = paired_difference(*losses).outcome_within(0.01) == "the same"
    return Evidence([shown, not math.isnan(mean_interval([0.001])[1]), False])


@evidence("loss-on-random-tokens")
def loss_on_random_tokens() -> Evidence:
    entropy = -sum(1 / 1000 * math.log(1 / 1000) for _ in range(1000))
    assert_recorded("claims.md", "its own script run unchanged gives 6.574")
    return Evidence(
        [entropy == 0, math.isclose(entropy, math.log(1000)), False],
        numbers={"6.908": entropy, "6.574": 6.574, "1000": 1000},
    )


@evidence("sixty-seven-times-faster")
def sixty_seven_times_faster() -> Evidence:
    assert_recorded("experiments.md", "6713 % faster")
    return Evidence(answer=1 + 6713 / 100, numbers={"100": 100, "68.13": 1 + 6713 / 100})


@evidence("three-seeds-or-five")
def three_seeds_or_five() -> Evidence:
    text = (DOCS / "statistics.md").read_text(encoding="utf-8")
    table = text.split("**One arm lower by 4 standard deviations")[1]
    (row,) = re.findall(r"^\| 4 \|(.*)\|$", table, re.MULTILINE)[:1]
    three, _, five, *_ = (float(cell) for cell in row.split("|"))
    return Evidence(
        [three == 98.8, three == 56.7, three == 100], numbers={"56.7": three, "98.8": five, "4": 4}
    )
