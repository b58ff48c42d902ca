"""From a test and what it rests on to one number with its 95 % interval.

Of trained runs: an arm is taken at the setting (learning rate, warmup ...) where it is lowest, and
arms are compared over equal seeds. Of a measurement: the mean over its seeds, widths or processes.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from normlab.analysis.arms import SEPARATOR, flatten_keys, format_setting, group_runs
from normlab.analysis.learning_rates import (
    FEWEST_RATES,
    RatedArm,
    analyse_learning_rates,
    has_halves,
)
from normlab.analysis.statistics import LEVEL, mean_interval, paired_difference
from normlab.apps.claims.claim import (
    Diverges,
    Exact,
    Level,
    Lower,
    Parity,
    Quantity,
    Ratio,
    Sensitivity,
    Slope,
    Test,
    Value,
)
from normlab.apps.claims.measurements import fit_slope
from normlab.apps.claims.runs import ClaimData, NoEstimateError, parse_arm, select_ended_runs
from normlab.archive import tags
from normlab.archive.record import NEUTRAL_KEYS
from normlab.archive.steadiness import is_steady, speed_variation
from normlab.archive.study import Run
from normlab.archive.versioned_json import none_to_nan
from normlab.text import count_noun

# Keys by which arms are named, and keys that say nothing about what was trained.
_ARM_KEYS = ("norm", "placement")
_IGNORED_KEYS = (*NEUTRAL_KEYS, "seed", "probes")


ReadNumber = Callable[[Run], float]
"""From a run to its number, NaN where it has none."""


@dataclass(frozen=True)
class TrainedArm:
    """How far an arm got where it is lowest: what a comparison of trained models rests on.

    Attributes:
        name: as the claim names it.
        loss: mean final validation loss at its best setting, nats per token.
        initial: mean validation loss before training, or NaN.
        unigram: the lowest loss without context, or None where it is not known.
        floor: the lowest loss that any model can reach, or None where it is not known.
        rate: the best setting's learning rate.
        rates: all of the arm's learning rates, ascending.
    """

    name: str
    loss: float
    initial: float
    unigram: float | None
    floor: float | None
    rate: float
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, what it was taken over, and the seeds; NaN where there is none.

    `arms` are the arms whose losses were compared; none in other tests. `largest` is the largest
    effect that such runs could surely have shown, whatever came out; infinite where none is known.
    """

    value: float
    low: float
    high: float
    basis: str
    seeds: tuple[int, ...] = ()
    arms: tuple[TrainedArm, ...] = ()
    largest: float = math.inf


@dataclass(frozen=True)
class Setting:
    """Runs of one arm that differ in nothing but the seed, by seed.

    `key` is the same for runs of another arm in the same circumstances, `label` what tells the
    setting from others of the arm: `lr=3e-3`.
    """

    key: str
    label: str
    runs: dict[int, Run]

    def count_state(self, state: str) -> int:
        """How many runs are in this state."""
        return sum(run.record.state == state for run in self.runs.values())

    def values_by_seed(self, read: ReadNumber) -> dict[int, float]:
        """What is read of every run, by seed."""
        return {seed: read(run) for seed, run in self.runs.items()}

    def count_diverged(self) -> "DivergenceCount":
        """How many runs diverged, of how many that ended."""
        diverged = self.count_state("diverged")
        return DivergenceCount(diverged, diverged + self.count_state("finished"))


@dataclass(frozen=True)
class DivergenceCount:
    """How many runs diverged, of how many that ended."""

    diverged: int
    ended: int

    @property
    def share(self) -> float:
        """Of the runs that ended, those that diverged."""
        return self.diverged / self.ended

    def __add__(self, other: "DivergenceCount") -> "DivergenceCount":
        return DivergenceCount(self.diverged + other.diverged, self.ended + other.ended)

    def __str__(self) -> str:
        return f"{self.diverged} of {self.ended}"


def estimate_effect(test: Test, data: ClaimData) -> Estimate:
    """The number that a test looks at.

    Raises:
        NoEstimateError: there is none, with the reason.
    """
    match test:
        case Lower() | Parity():
            estimate = _estimate_difference(test, data.runs)
        case Sensitivity():
            estimate = _estimate_sensitivity(test, data.runs)
        case Diverges():
            estimate = _estimate_divergence(test, data.runs)
        case Level():
            estimate = _estimate_level(test, data.runs)
        case Slope() | Value():
            values, over = _read_series(data, test.of)
            estimate = _estimate_mean(values, count_noun(len(values), over))
        case Ratio():
            estimate = _estimate_ratio(test, data)
        case Exact():
            # No interval: an equation that fails once does not hold.
            values, over = _read_series(data, test.of)
            basis = f"the worst of {count_noun(len(values), over)}"
            estimate = Estimate(max(values), max(values), max(values), basis)
    if math.isnan(estimate.value):
        raise NoEstimateError("what was measured is not finite")
    return estimate


def _estimate_difference(test: Lower | Parity, runs: Sequence[Run]) -> Estimate:
    keys = _arm_keys(test.a, test.b)
    ended = {arm: select_ended_runs(runs, arm) for arm in (test.a, test.b)}
    settings = {arm: group_settings(members, keys) for arm, members in ended.items()}
    is_chosen = any(len(of_arm) > 1 for of_arm in settings.values())
    ended_runs = [run for members in ended.values() for run in members]
    choose, compare = select_readers(ended_runs, test.quantity, is_chosen)
    a, b = (find_lowest_setting(arm, settings[arm], choose) for arm in (test.a, test.b))
    note = ", ".join(f"{name} at {s.label}" for name, s in (("a", a), ("b", b)) if s.label)
    paired = _estimate_paired(a.values_by_seed(compare), b.values_by_seed(compare), note)
    arms = tuple(
        describe_trained_arm(arm, list(setting.runs.values()), ended[arm])
        for arm, setting in ((test.a, a), (test.b, b))
    )
    return replace(paired, arms=arms)


def _estimate_sensitivity(test: Sensitivity, runs: Sequence[Run]) -> Estimate:
    a, b = (_arm_over_rates(runs, arm) for arm in (test.a, test.b))
    if a.grid != b.grid:
        raise NoEstimateError("the arms do not have the same learning rates")
    arms = tuple(
        describe_trained_arm(
            arm, [run for run in rated.arm.runs if run_rate(run) == rated.best.rate], rated.arm.runs
        )
        for arm, rated in ((test.a, a), (test.b, b))
        if rated.best is not None
    )
    # An arm that learns less has less to lose at a wrong rate: its sensitivity is read beside that.
    losses = " and ".join(f"{arm.loss:.3f}" for arm in arms)
    note = f"{len(a.grid)} learning rates, best losses {losses}"
    paired = _estimate_paired(a.sensitivity, b.sensitivity, note)
    # A mean over rates of losses up to the initial one, less the lowest, which is one of them.
    share = 1 - 1 / len(a.grid)
    largest = max((share * (arm.initial - arm.loss) for arm in arms), default=math.inf)
    return replace(paired, arms=arms, largest=largest)


def _estimate_divergence(test: Diverges, runs: Sequence[Run]) -> Estimate:
    keys = _arm_keys(test.a, test.b)
    a, b = (
        {setting.key: setting for setting in group_settings(select_ended_runs(runs, arm), keys)}
        for arm in (test.a, test.b)
    )
    pairs = [(a[key], b[key]) for key in a if key in b]
    counts = [(x.count_diverged(), y.count_diverged(), x.label) for x, y in pairs]
    counts = [(x, y, label) for x, y, label in counts if x.ended and y.ended]
    if not counts:
        raise NoEstimateError("the arms have no setting in common in which runs ended")
    first, second, label = max(counts, key=lambda count: abs(count[0].share - count[1].share))
    # The setting was picked among so many: each interval is that of a stricter level (Bonferroni).
    confidence, note = 1 - LEVEL / len(counts), f" at {label}" if label else ""
    # As if all runs of a and none of b had diverged there. At one rate seven of seven against none
    # of seven are not surely more than 0.5 apart, eight of eight are.
    all_of_a = DivergenceCount(first.ended, first.ended)
    largest = share_difference(all_of_a, DivergenceCount(0, second.ended), confidence)[1]
    if len(counts) > 1 and first.share == second.share:  # the arms differ nowhere
        none = DivergenceCount(0, 0)
        first, second = sum((x for x, _, _ in counts), none), sum((y for _, y, _ in counts), none)
        confidence, note = 1 - LEVEL, " at all rates together"
    elif label and len(counts) > 1:
        note += f", the one of {len(counts)} where they differ most (Bonferroni)"
    basis = f"{first} against {second} diverged{note}"
    seeds = {seed for pair in pairs for setting in pair for seed in setting.runs}
    shares = share_difference(first, second, confidence)
    return Estimate(*shares, basis, tuple(sorted(seeds)), largest=largest)


def _estimate_level(test: Level, runs: Sequence[Run]) -> Estimate:
    keys, ended = _arm_keys(test.arm), select_ended_runs(runs, test.arm)
    settings = group_settings(ended, keys)
    choose, compare = select_readers(ended, test.quantity, is_chosen=len(settings) > 1)
    setting = find_lowest_setting(test.arm, settings, choose)
    values = setting.values_by_seed(compare)
    basis = count_noun(len(values), "seed") + (f" at {setting.label}" if setting.label else "")
    return _estimate_mean([*values.values()], basis, tuple(sorted(values)))


def _estimate_ratio(test: Ratio, data: ClaimData) -> Estimate:
    values, over = _read_series(data, test.of)
    if min(values) <= 0:
        raise NoEstimateError(f"{test.of} holds a ratio that is not above zero")
    variation = speed_variation(values)
    if math.isnan(variation):
        raise NoEstimateError(f"{test.of} has {len(values)} {over}s, too few to compare speeds")
    if not is_steady(variation):
        raise NoEstimateError(
            f"{test.of} varies by {100 * variation:.0f} % over equal parts of the measurement, so "
            f"speeds are not comparable"
        )
    # On a logarithm twice as fast and half as fast are equally far from equal.
    logs = _estimate_mean([math.log(value) for value in values], count_noun(len(values), over))
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.basis)


def _estimate_paired(a: dict[int, float], b: dict[int, float], note: str) -> Estimate:
    difference = paired_difference(a, b)
    seeds = tuple(seed for seed in sorted(a.keys() & b.keys()) if math.isfinite(a[seed] - b[seed]))
    if not seeds:
        raise NoEstimateError("the arms have no seed in common for which this is known")
    basis = ", ".join(filter(None, [f"{count_noun(difference.pairs, 'pair')} of seeds", note]))
    low, high = difference.mean - difference.half, difference.mean + difference.half
    return Estimate(difference.mean, low, high, basis, seeds)


def _estimate_mean(values: Sequence[float], basis: str, seeds: tuple[int, ...] = ()) -> Estimate:
    mean, half = mean_interval(values)
    return Estimate(mean, mean - half, mean + half, basis, seeds)


def _arm_over_rates(runs: Sequence[Run], arm: str) -> RatedArm:
    rates = analyse_learning_rates(group_runs(select_ended_runs(runs, arm)))
    if rates is None:
        raise NoEstimateError(f"sensitivity takes {FEWEST_RATES} learning rates of {arm}")
    if len(rates.arms) > 1:
        raise NoEstimateError(f"{arm} is {len(rates.arms)} arms, which are not one over its rates")
    return rates.arms[0]


def _read_series(data: ClaimData, name: str) -> tuple[list[float], str]:
    """The values of a measurement, and the word for what they go over."""
    series = data.measurement.series if data.measurement else {}
    if data.measurement is None or not series.get(name):
        raise NoEstimateError(
            f"{name} was not measured; there are {', '.join(series) or 'no values'}"
        )
    return series[name], data.measurement.over


def find_lowest_setting(arm: str, settings: Sequence[Setting], read: ReadNumber) -> Setting:
    """The arm's setting with the lowest mean of `read`, of those in which all runs finished.

    Raises:
        NoEstimateError: there is none.
    """
    # Not by the mean of the runs that are left: where some diverged it would be too low.
    complete = [s for s in settings if s.count_state("finished") == len(s.runs)]
    if not complete:
        diverged = sum(setting.count_state("diverged") for setting in settings)
        count = sum(len(setting.runs) for setting in settings)
        raise NoEstimateError(
            f"{diverged} of {count} runs with {arm} diverged, at least one at every setting"
        )
    return min(complete, key=lambda setting: fmean(setting.values_by_seed(read).values()))


def group_settings(runs: Sequence[Run], arm_keys: Iterable[str] = ()) -> list[Setting]:
    """The runs of an arm, grouped by everything but the seed and the keys that name arms.

    Raises:
        NoEstimateError: two runs of one setting and seed: the arm is two networks.
    """
    ignored = {*arm_keys}
    configs = [
        {
            key: value
            for key, value in sorted(flatten_keys(run.record.config).items())
            if key.split(".")[0] not in (*_IGNORED_KEYS, *_ARM_KEYS) and key not in ignored
        }
        for run in runs
    ]
    varying = [
        key
        for key in dict.fromkeys(key for config in configs for key in config)
        if len({json.dumps(config.get(key)) for config in configs}) > 1
    ]
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    labels = {}
    for run, config in zip(runs, configs, strict=True):
        key = json.dumps(config)
        twin = groups[key].setdefault(run.record.seed, run)
        if twin is not run:
            raise NoEstimateError(
                f"{twin.record.name} and {run.record.name} both match one arm of the claim and "
                f"have the same seed; name what differs in the arm"
            )
        # The rate is named once, also where it does not vary.
        named = [(name, config[name]) for name in ("optimizer.lr", *varying) if name in config]
        labels[key] = SEPARATOR.join(
            dict.fromkeys(format_setting((name.split(".")[-1], value)) for name, value in named)
        )
    return [Setting(key, labels[key], members) for key, members in groups.items()]


def describe_trained_arm(name: str, best: Sequence[Run], runs: Sequence[Run]) -> TrainedArm:
    """The arm of these runs, `best` those at its best setting."""
    record = best[0].record
    losses = [run.record.final.val_loss for run in best if run.record.final.val_loss is not None]
    initial = [
        float(series.values[0])
        for run in runs
        if (series := run.events.scalars.get(tags.VALIDATION_LOSS)) is not None
        and len(series.values)
        and series.steps[0] == 0
    ]
    return TrainedArm(
        name,
        fmean(losses) if losses else math.nan,
        fmean(initial) if initial else math.nan,
        record.unigram,
        record.floor,
        run_rate(best[0]),
        tuple(sorted({run_rate(run) for run in runs})),
    )


def run_rate(run: Run) -> float:
    """The peak learning rate; NaN where the record has none."""
    return float(flatten_keys(run.record.config).get("optimizer.lr", math.nan))


def select_readers(
    runs: Sequence[Run], quantity: Quantity, is_chosen: bool
) -> tuple[ReadNumber, ReadNumber]:
    """By what a setting is chosen, and by what arms are compared at it.

    Where a setting is chosen among several, they are the final losses on the two halves of the
    validation windows, if all runs that finished have both; see `normlab.analysis.learning_rates`.
    """
    read = partial(run_quantity, quantity=quantity)
    finished = [run for run in runs if run.record.state == "finished"]
    # The lowest of several losses is too low by chance on the windows that chose it. In simulations
    # of equal arms, choosing on other windows gives at most 6.2 % false differences, and choosing
    # on other seeds up to 13 %. Where nothing is chosen, all windows count.
    if not is_chosen or quantity is not Quantity.final or not has_halves(finished):
        return read, read
    return (
        lambda run: none_to_nan(run.record.final.selection_loss),
        lambda run: none_to_nan(run.record.final.test_loss),
    )


def run_quantity(run: Run, quantity: Quantity) -> float:
    """One run's number; NaN where it has none."""
    match quantity:
        case Quantity.final:
            return none_to_nan(run.record.final.val_loss)
        case Quantity.growth:
            return _variance_growth(run)
        case Quantity.acceleration:
            return _variance_acceleration(run)


def _variance_growth(run: Run) -> float:
    """Slope of ln(variance gained) over ln(block), at the last probed step; NaN without probes."""
    start, variances = _stream_variances(run)
    if not all(variance > start for variance in variances):
        return math.nan
    blocks = [math.log(block) for block in range(1, len(variances) + 1)]
    return fit_slope(blocks, [math.log(variance - start) for variance in variances])


def _variance_acceleration(run: Run) -> float:
    """Ln of what the second half of the blocks adds to the variance over what the first half adds.

    The first block is left out, for it adds to an embedding of another scale, and where the number
    of blocks is even the last: of 8 blocks, 2 to 4 against 5 to 7. 0 is linear growth; a variance
    that grows as e^{bl} over blocks l has b times the number of blocks in a half. NaN without
    probes, with fewer than three blocks, or where a half adds nothing.
    """
    _, variances = _stream_variances(run)
    if len(variances) < 3:
        return math.nan
    # With an even number of steps between them the halves are equally long.
    last = len(variances) - 1 - (len(variances) - 1) % 2
    middle = last // 2
    first_half = variances[middle] - variances[0]
    second_half = variances[last] - variances[middle]
    if not (first_half > 0 and second_half > 0):
        return math.nan
    return math.log(second_half / first_half)


def _stream_variances(run: Run) -> tuple[float, list[float]]:
    """The stream's variance before the first block, and after each, at the last probed step."""
    last_values = {
        probed[1]: float(series.values[-1])
        for tag, series in run.events.scalars.items()
        if (probed := tags.split_probe_tag(tag)) and probed[0] == tags.STREAM_VARIANCE
    }
    after_blocks = {}
    for site, variance in last_values.items():
        block, _, sublayer = site.removeprefix("block_").partition("/")
        if sublayer == "feedforward":  # a block's last
            after_blocks[int(block)] = variance
    ordered = [after_blocks[block] for block in sorted(after_blocks)]
    return last_values.get("embedding", math.nan), ordered


def share_difference(
    a: DivergenceCount, b: DivergenceCount, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Share a − share b and its interval.

    Newcombe's hybrid of two Wilson intervals (Statistics in Medicine 17, 1998, method 10), which
    needs no large numbers.
    """
    share_a, share_b = a.share, b.share
    (a_low, a_high), (b_low, b_high) = (
        wilson_interval(count.diverged, count.ended, confidence) for count in (a, b)
    )
    below = math.hypot(share_a - a_low, b_high - share_b)
    above = math.hypot(a_high - share_a, share_b - b_low)
    difference = share_a - share_b
    return difference, max(-1.0, difference - below), min(1.0, difference + above)


def wilson_interval(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share: 3 of 3 is 0.44 to 1, 0 of 3 is 0 to 0.56."""
    from scipy.special import ndtri  # scipy.stats has the interval, and takes a second to import

    z = float(ndtri((1 + confidence) / 2))
    share, weight = hits / of, z * z / of
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / of + weight / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def _arm_keys(*arms: str) -> set[str]:
    return {key for arm in arms for key in parse_arm(arm)}
