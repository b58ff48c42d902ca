"""What weakens the comparison of a study's arms, in sentences: seeds, mixtures, missing runs."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from itertools import pairwise
from typing import Any

from normlab.analysis.arms import Arm, Facet, format_value
from normlab.analysis.comparison import (
    is_below_floor,
    is_invalid,
    learned_data,
    learned_several,
    losses_by_seed,
)
from normlab.analysis.formatting import join_first
from normlab.analysis.statistics import mean_interval
from normlab.archive import tags
from normlab.archive.record import SETTLED_STATES
from normlab.archive.study import Run
from normlab.text import count_noun


def find_caveats(
    runs: Sequence[Run], facets: Sequence[Facet], compared_facets: Sequence[Facet]
) -> Iterator[str]:
    """Sentences about whatever weakens the comparison of a study's arms; none if nothing does.

    The arms of `facets` have all runs; those of `compared_facets`, in a study over learning rates,
    the runs at the best rate alone.
    """
    yield from _seed_caveats(compared_facets)
    yield from _init_caveats(runs)
    yield from _impossible_caveats(_distinct_arms(facets))
    yield from _group_caveats(_distinct_arms(compared_facets))
    yield from _mixture_caveats(facets)
    yield from _budget_caveats(runs)
    yield from _precision_caveats(facets)
    yield from _data_caveats(facets)
    yield from _run_caveats(runs)


def _distinct_arms(facets: Sequence[Facet]) -> list[Arm]:
    """The arms of all facets; one that lacks a setting is in several."""
    return list({arm.label: arm for facet in facets for arm in facet.arms}.values())


def _seed_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    finished = {arm.label: _arm_seeds(arm, "finished") for arm in _distinct_arms(facets)}
    alone = [label for label, seeds in finished.items() if len(seeds) == 1]
    if max(map(len, finished.values()), default=0) == 1:
        yield (
            "One seed: no number has an interval, and an effect cannot be separated from noise; "
            "add seed=0,1,2 to the command."
        )
    elif alone:
        yield f"Only one seed finished, and so no interval: {join_first(alone)}."
    lacking = {}
    for facet in facets:
        seeds = {seed for arm in facet.arms for seed in _arm_seeds(arm)}
        for arm in facet.arms:
            if missing := sorted(seeds - _arm_seeds(arm)):
                lacking[arm.label] = f"{arm.label} lacks seed={','.join(map(str, missing))}"
    if lacking:
        yield (
            f"Not all arms have a result for the same seeds, and only equal seeds are paired: "
            f"{join_first(lacking.values())}."
        )


# Placements whose papers derive their factors for Xavier's weights: 2203.00555, 2210.06423,
# 2004.08249, 2206.00330.
_XAVIER_PLACEMENTS = ("deepnorm", "subln", "admin", "b2t")


def _init_caveats(runs: Sequence[Run]) -> Iterator[str]:
    """Placements that assume other weights at the start than the model has."""
    names = set()
    for run in runs:
        model = run.record.config.get("model")
        init = model.get("init") if isinstance(model, dict) else None
        if isinstance(init, dict) and init.get("scheme", "normal") != "xavier":
            names.add(run.record.placement)
    assuming = [name for name in _XAVIER_PLACEMENTS if name in names]
    if assuming:
        yield (
            f"The factors of {', '.join(assuming)} were derived for Xavier's weights, and these "
            f"models start from smaller ones; model.init.scheme=xavier starts from Xavier's."
        )


def _impossible_caveats(arms: Sequence[Arm]) -> Iterator[str]:
    """Arms that were trained without the check for leaks, or that see what they have to predict."""
    if invalid := [arm.label for arm in arms if is_invalid(arm)]:
        yield (
            f"Trained with allow_leak=true, without the check that no token sees a later one, and "
            f"so compared with none: {join_first(invalid)}."
        )
    if below := [arm.label for arm in arms if is_below_floor(arm)]:
        yield (
            f"Below the floor, possible only for a model that sees the tokens it has to predict: "
            f"{join_first(below)}. Such losses mean nothing, and are compared with none."
        )


# Two groups of seeds: the gap between them is this many times as wide as either group. Of arms with
# normally distributed losses 2 % have such a gap with five seeds, and 4 % with four.
_WIDE_GAP = 4.0
_SMALLEST_GAP = 0.02  # nats per token
_FEWEST_IN_TWO_GROUPS = 4


def _group_caveats(arms: Sequence[Arm]) -> Iterator[str]:
    """Arms whose seeds end in two groups: their mean is the loss of no run."""
    rows = []
    for arm in arms:
        if groups := split_in_two(losses_by_seed(arm).values()):
            low, high = groups
            rows.append(
                f"{arm.label} ({len(low)} at {mean_interval(low)[0]:.4f}, "
                f"{len(high)} at {mean_interval(high)[0]:.4f})"
            )
    if rows:
        yield (
            f"Seeds end in two groups, so a mean and its interval describe no run; count the runs "
            f"of each, or train longer: {join_first(rows)}."
        )


def split_in_two(losses: Collection[float]) -> tuple[list[float], list[float]] | None:
    """The losses in two groups with a wide gap between them; None where there is none.

    The gap must be `_WIDE_GAP` times the width of either group and `_SMALLEST_GAP`.
    """
    ordered = sorted(losses)
    if len(ordered) < _FEWEST_IN_TWO_GROUPS:
        return None
    gap, at = max(
        (after - before, index) for index, (before, after) in enumerate(pairwise(ordered))
    )
    low, high = ordered[: at + 1], ordered[at + 1 :]
    width = max(low[-1] - low[0], high[-1] - high[0])
    # A single run far from the others is no group.
    is_apart = gap > max(_WIDE_GAP * width, _SMALLEST_GAP) and min(len(low), len(high)) > 1
    return (low, high) if is_apart else None


def _arm_seeds(arm: Arm, *states: str) -> set[int]:
    return {run.record.seed for run in arm.with_state(*(states or SETTLED_STATES))}


# What may differ between runs of one comparison without being an arm's own.
_ASPECTS: dict[str, Callable[[Run], Any]] = {
    "steps": lambda run: run.record.last_step,
    "precision": lambda run: run.record.precision,
    "device": lambda run: run.record.device,
    "threads": lambda run: run.record.threads,
    "CPU kernels": lambda run: run.record.kernels,
    "how they were trained": lambda run: "in a stack" if run.record.stacked else "alone",
    "versions": lambda run: tuple(sorted(run.record.versions.items())) or None,
    "commit": lambda run: run.record.git and run.record.git.short_name,
}


def _mixture_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    arms = _distinct_arms(facets)
    modules = {name for arm in arms for run in arm.runs for name in run.record.sources}

    def source_of(module: str) -> Callable[[Run], Any]:
        return lambda run: run.record.sources.get(module)

    sources = {f"the source of {module}": source_of(module) for module in sorted(modules)}
    for aspect, value_of in {**_ASPECTS, **sources}.items():
        # By id: an arm that lacks a setting is in several facets, and its runs count once.
        mixed: dict[Any, dict[int, Run]] = defaultdict(dict)
        for facet in facets:
            runs = [run for arm in facet.arms for run in arm.with_state(*SETTLED_STATES)]
            values = {id(run): value for run in runs if (value := value_of(run)) is not None}
            if len(set(values.values())) > 1:
                for run in runs:
                    if id(run) in values:
                        mixed[values[id(run)]][id(run)] = run
        if mixed:
            yield (
                f"Runs that are compared differ in {aspect}: "
                f"{join_first(_name_differing_values(aspect, mixed))}. A difference between arms "
                f"may come from that."
            )


def _name_differing_values(aspect: str, runs: Mapping[Any, Sized]) -> list[str]:
    values = list(runs)
    if aspect == "versions":  # of all packages, those that differ
        common = set(values[0]).intersection(*values[1:])
        words = [
            " ".join(
                f"{name} {number}" for name, number in versions if (name, number) not in common
            )
            for versions in values
        ]
    else:
        words = [format_value(value) for value in values]
    pairs = sorted(zip(map(len, runs.values()), words, strict=True), reverse=True)
    return [f"{word} in {count_noun(count, 'run')}" for count, word in pairs]


def _budget_caveats(runs: Sequence[Run]) -> Iterator[str]:
    budgets = {steps for run in runs if (steps := run.record.last_step) is not None}
    if len(budgets) > 1:
        words = [f"{steps} steps" for steps in sorted(budgets)]
        yield f"Runs of different budgets are not compared with each other: {join_first(words)}."


def _precision_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    """Where precisions are apart by facet; inside one they are a mixture."""
    by_facet = [
        {run.record.precision for arm in facet.arms for run in arm.runs} - {None}
        for facet in facets
    ]
    distinct = {str(precision) for precisions in by_facet for precision in precisions}
    if len(distinct) > 1 and all(len(precisions) <= 1 for precisions in by_facet):
        yield (
            f"Runs of other precision are not compared with each other: "
            f"{join_first(sorted(distinct))}."
        )


def _data_caveats(facets: Sequence[Facet]) -> Iterator[str]:
    labels = []
    for facet in facets:
        arms = [arm for arm in facet.arms if arm.with_state(*SETTLED_STATES)]
        if len({learned_data(arm) for arm in arms}) > 1 or any(map(learned_several, arms)):
            labels += [arm.label for arm in arms]
    if labels:
        yield (
            f"Losses on different data do not compare, and are not compared: {join_first(labels)}."
        )


def _run_caveats(runs: Sequence[Run]) -> Iterator[str]:
    """Runs without a result, with damaged logs, or with probes that others do not have."""
    by_state: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_state[run.record.state].append(run)
    if failed := by_state["failed"]:
        named = [f"{run.record.name} ({run.record.reason or 'no reason kept'})" for run in failed]
        yield f"Failed, not counted: {join_first(named)}. The same command tries again."
    if stopped := by_state["interrupted"]:
        named = [f"{run.record.name} at step {run.record.step}" for run in stopped]
        yield (
            f"Interrupted, not in the means: {join_first(named)}. The curves end in an open "
            f"circle; the command that began them goes on with them."
        )
    if running := by_state["running"]:
        named = [run.record.name for run in running]
        yield f"Still running, not counted yet: {join_first(named)}."
    damaged = [run.record.name for run in runs if not run.complete]
    if damaged:
        yield (
            f"The logs are damaged or incomplete, and with them the curves: {join_first(damaged)}."
        )
    # `last_steps` has every tag of a run, also those whose points were not asked for.
    probed = [run for run in runs if any(map(tags.split_probe_tag, run.events.last_steps))]
    if 0 < len(probed) < len(runs):
        yield (
            f"Probes were on in {len(probed)} of {len(runs)} runs, which costs time: speeds do not "
            f"compare."
        )
