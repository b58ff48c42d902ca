"""The arms that a claim names, found among the runs of its study."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normlab.analysis.arms import SEPARATOR, describe, flatten
from normlab.apps.claims.claim import Quantity
from normlab.archive import tags
from normlab.archive.record import NEUTRAL_KEYS, SETTLED_STATES
from normlab.archive.study import Run

# What arms are named by, and what says nothing about what was trained.
_NAMED = ("norm", "placement")
_APART = ("seed", "probes", *NEUTRAL_KEYS)

_LAST_SITE = "feedforward"


class NoBasisError(Exception):
    """Why a claim has nothing to rest on: a sentence."""


@dataclass(frozen=True)
class Setting:
    """Runs of one arm that differ in nothing but the seed, by seed.

    `key` is the same for runs of another arm in the same circumstances, `label` what tells the
    setting from others of the arm: `lr=3e-3`.
    """

    key: str
    label: str
    runs: dict[int, Run]

    def with_state(self, state: str) -> dict[int, Run]:
        """The runs in this state."""
        return {seed: run for seed, run in self.runs.items() if run.record.state == state}


def parsed(arm: str) -> dict[str, str]:
    """`norm=layernorm optimizer.lr=1e-3` by key.

    Raises:
        NoBasisError: a word of it is no key=value.
    """
    words = [word.partition("=") for word in arm.split()]
    if not words or not all(sign for _, sign, _ in words):
        raise NoBasisError(f"{arm!r} names no arm; write key=value, as in norm=rmsnorm")
    return {key: value for key, _, value in words}


def runs_of(runs: Iterable[Run], arm: str) -> list[Run]:
    """The runs that have all of the arm's keys."""
    wanted = parsed(arm)
    return [run for run in runs if all(_has(run, key, value) for key, value in wanted.items())]


def select(runs: Iterable[Run], arm: str) -> list[Run]:
    """The same, where there are some and every one has ended: finished, or diverged.

    Raises:
        NoBasisError: there is none, or one has not ended.
    """
    found = runs_of(runs, arm)
    if not found:
        raise NoBasisError(f"no run has {arm}")
    open_ends = [run.record for run in found if run.record.state not in SETTLED_STATES]
    if open_ends:
        reason = next((one.reason for one in open_ends if one.reason), "not trained yet")
        raise NoBasisError(
            f"{len(open_ends)} of {len(found)} runs with {arm} have not ended ({reason})"
        )
    return found


def settings(runs: Sequence[Run], named: Iterable[str] = ()) -> list[Setting]:
    """The runs of an arm apart by everything but the seed and the keys that name arms.

    Raises:
        NoBasisError: the arm is two networks.
    """
    known = [_circumstances(run, {*named}) for run in runs]
    varying = [
        key
        for key in dict.fromkeys(key for one in known for key in one)
        if len({_frozen(one.get(key)) for one in known}) > 1
    ]
    found: dict[str, dict[int, Run]] = defaultdict(dict)
    labels = {}
    for run, one in zip(runs, known, strict=True):
        key = _frozen(one)
        if run.record.seed in found[key]:
            raise NoBasisError(
                f"{found[key][run.record.seed].record.name} and {run.record.name} are one arm of "
                f"the claim, but two networks"
            )
        found[key][run.record.seed] = run
        told = [(name, one[name]) for name in ("optimizer.lr", *varying) if name in one]
        labels[key] = SEPARATOR.join(
            dict.fromkeys(describe((name.split(".")[-1], value)) for name, value in told)
        )
    return [Setting(key, labels[key], members) for key, members in found.items()]


def lowest(runs: Sequence[Run], arm: str, named: Iterable[str], quantity: Quantity) -> Setting:
    """The arm's setting with the lowest mean, of those in which every run finished.

    Raises:
        NoBasisError: there is none.
    """
    found = settings(select(runs, arm), named)
    whole = [one for one in found if len(one.with_state("finished")) == len(one.runs)]
    if not whole:
        runs = [run for one in found for run in one.runs.values()]
        diverged = sum(run.record.state == "diverged" for run in runs)
        raise NoBasisError(
            f"{diverged} of {len(runs)} runs with {arm} diverged, at least one at every setting"
        )
    return min(whole, key=lambda one: _mean([measure(r, quantity) for r in one.runs.values()]))


def by_seed(setting: Setting, quantity: Quantity) -> dict[int, float]:
    """What is compared, by seed."""
    return {seed: measure(run, quantity) for seed, run in setting.runs.items()}


def measure(run: Run, quantity: Quantity) -> float:
    """One run's number; NaN where it has none."""
    if quantity is Quantity.growth:
        return _growth(run)
    record = run.record
    value = record.best.val_loss if quantity is Quantity.best else record.final.val_loss
    return math.nan if value is None else value


def _growth(run: Run) -> float:
    """Slope of ln(variance gained) over ln(block), at the last probed step; NaN without probes."""
    last = {
        probed[1]: float(series.values[-1])
        for tag, series in run.events.scalars.items()
        if (probed := tags.split_probe_tag(tag)) and probed[0] == tags.STREAM_VARIANCE
    }
    start = last.get("embedding", math.nan)
    points = []
    for site, variance in last.items():
        block, _, sublayer = site.removeprefix("block_").partition("/")
        if sublayer == _LAST_SITE:
            if not variance > start:
                return math.nan
            points.append((math.log(int(block)), math.log(variance - start)))
    return slope(points)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope through points; NaN for fewer than two places."""
    if len({x for x, _ in points}) < 2:
        return math.nan
    middle_x, middle_y = _mean([x for x, _ in points]), _mean([y for _, y in points])
    above = math.fsum((x - middle_x) * (y - middle_y) for x, y in points)
    return above / math.fsum((x - middle_x) ** 2 for x, _ in points)


def _has(run: Run, key: str, value: str) -> bool:
    record = run.record
    if key in _NAMED:
        return getattr(record, key) in (value, "any")
    if "." not in key:
        return record.choices.get(key) == value
    return _same(flatten(record.config).get(key), value)


def _same(found: Any, value: str) -> bool:
    if isinstance(found, bool) or found is None:
        return _frozen(found) == value
    if isinstance(found, int | float):
        try:
            return float(value) == found
        except ValueError:
            return False
    return str(found) == value


def _circumstances(run: Run, named: set[str]) -> Mapping[str, Any]:
    flat = flatten(run.record.config)
    return {
        key: value
        for key, value in sorted(flat.items())
        if key.split(".")[0] not in (*_APART, *_NAMED) and key not in named
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


_frozen: Callable[[Any], str] = json.dumps
