"""What stands against a study's numbers: seeds, mixtures, and runs that are in no number."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Any

from normlab.analysis.arms import Arm, Facet, format_value
from normlab.analysis.comparison import learned
from normlab.analysis.sentences import some
from normlab.archive import tags
from normlab.archive.study import Run, Study

_RESULTS = ("finished", "diverged")


def caveats(study: Study, facets: Sequence[Facet]) -> list[str]:
    """Sentences about whatever weakens the comparison of the study's arms; none if nothing does."""
    found = [
        *_seeds(facets),
        *_mixtures(facets),
        *_budgets(study.runs),
        *_precisions(facets),
        *_other_data(facets),
        *_without_a_result(study.runs),
        *_damaged(study),
        *_probed(study.runs),
    ]
    return list(dict.fromkeys(found))


def _seeds(facets: Sequence[Facet]) -> Iterator[str]:
    arms = {arm.label: arm for facet in facets for arm in facet.arms}
    finished = [len(_seeds_of(arm, "finished")) for arm in arms.values()]
    if max(finished, default=0) == 1:
        yield (
            "One seed: no number has an interval, and noise and effect look alike; add seed=0,1,2 "
            "to the command."
        )
    elif 1 in finished:
        alone = [arm.label for arm in arms.values() if len(_seeds_of(arm, "finished")) == 1]
        yield f"Only one seed finished, and so no interval: {some(alone)}."
    lacking = {}
    for facet in facets:
        every = {seed for arm in facet.arms for seed in _seeds_of(arm)}
        for arm in facet.arms:
            if missing := sorted(every - _seeds_of(arm)):
                lacking[arm.label] = f"{arm.label} lacks seed={','.join(map(str, missing))}"
    if lacking:
        yield (
            f"Not all arms have a result for the same seeds, and only equal seeds are paired: "
            f"{some(lacking.values())}."
        )


def _seeds_of(arm: Arm, *states: str) -> set[int]:
    return {run.record.seed for run in arm.with_state(*(states or _RESULTS))}


# What may differ between runs of one comparison without being an arm's own.
_ASPECTS: dict[str, Callable[[Run], Any]] = {
    "steps": lambda run: _trainer(run).get("max_steps"),
    "precision": lambda run: run.record.precision,
    "device": lambda run: run.record.device,
    "threads": lambda run: run.record.threads,
    "versions": lambda run: tuple(sorted(run.record.versions.items())) or None,
    "commit": lambda run: _commit(run),
}


def _mixtures(facets: Sequence[Facet]) -> Iterator[str]:
    for aspect, value_of in _ASPECTS.items():
        mixed: dict[Any, dict[int, Run]] = defaultdict(dict)
        for facet in facets:
            runs = [run for arm in facet.arms for run in arm.with_state(*_RESULTS)]
            values = {id(run): value for run in runs if (value := value_of(run)) is not None}
            if len(set(values.values())) > 1:
                for run in runs:
                    if id(run) in values:
                        mixed[values[id(run)]][id(run)] = run
        if mixed:
            yield (
                f"Runs that are compared differ in {aspect}: {some(_counted(aspect, mixed))}. A "
                f"difference between arms may come from that."
            )


def _counted(aspect: str, runs: Mapping[Any, Sized]) -> list[str]:
    values = list(runs)
    if aspect == "versions":  # of all packages, those that differ
        common = set(values[0]).intersection(*values[1:])
        words = [
            " ".join(f"{name} {number}" for name, number in one if (name, number) not in common)
            for one in values
        ]
    else:
        words = [format_value(value) for value in values]
    counts = [len(alike) for alike in runs.values()]
    pairs = sorted(zip(counts, words, strict=True), reverse=True)
    return [f"{word} in {count} run{'s' * (count > 1)}" for count, word in pairs]


def _trainer(run: Run) -> dict[str, Any]:
    trainer = run.record.config.get("trainer")
    return trainer if isinstance(trainer, dict) else {}


def _commit(run: Run) -> str | None:
    git = run.record.git or {}
    if not git.get("commit"):
        return None
    return str(git["commit"])[:8] + (" with changes" if git.get("dirty") else "")


def _budgets(runs: Sequence[Run]) -> Iterator[str]:
    budgets = {steps for run in runs if (steps := _trainer(run).get("max_steps")) is not None}
    if len(budgets) > 1:
        words = [f"{steps} steps" for steps in sorted(budgets)]
        yield f"Runs of different budgets are not compared with each other: {some(words)}."


def _precisions(facets: Sequence[Facet]) -> Iterator[str]:
    """Where precisions are apart by facet; inside one they are a mixture."""
    found = [
        {run.record.precision for arm in facet.arms for run in arm.runs} - {None}
        for facet in facets
    ]
    every = {str(one) for precisions in found for one in precisions}
    if len(every) > 1 and all(len(precisions) <= 1 for precisions in found):
        yield f"Runs of other precision are not compared with each other: {some(sorted(every))}."


def _other_data(facets: Sequence[Facet]) -> Iterator[str]:
    apart = [
        arm.label
        for facet in facets
        if len({learned(arm) for arm in facet.arms}) > 1
        for arm in facet.arms
    ]
    if apart:
        yield f"Losses on different data do not compare, and are not compared: {some(apart)}."


def _without_a_result(runs: Sequence[Run]) -> Iterator[str]:
    by_state: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_state[run.record.state].append(run)
    if failed := by_state["failed"]:
        named = [f"{run.record.name} ({run.record.reason or 'no reason kept'})" for run in failed]
        yield f"Failed, and in no number: {some(named)}. The same command tries again."
    if stopped := by_state["interrupted"]:
        named = [f"{run.record.name} at step {run.record.step}" for run in stopped]
        yield (
            f"Interrupted, and so in no mean of finished runs: {some(named)}. The curves end in an "
            f"open circle; the command that began them goes on with them."
        )
    if running := by_state["running"]:
        yield f"Still running, and in no number yet: {some(run.record.name for run in running)}."


def _damaged(study: Study) -> Iterator[str]:
    damaged = [run.record.name for run in study.runs if not run.complete]
    if damaged:
        yield f"The logs are damaged or incomplete, and with them the curves: {some(damaged)}."


def _probed(runs: Sequence[Run]) -> Iterator[str]:
    probed = [run for run in runs if any(map(tags.split_probe_tag, run.events.last_steps))]
    if 0 < len(probed) < len(runs):
        yield (
            f"Probes were on in {len(probed)} of {len(runs)} runs, which costs time: speeds do not "
            f"compare."
        )
