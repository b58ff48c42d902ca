"""What claims measure without training: a function a measurement, its result stored as JSON.

Torch, which takes seconds to import, is imported by what measures.
"""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import StatisticsError, fmean, linear_regression

import numpy as np

from normlab.apps.claims.record import OUTPUT_REMEDY, StoredMeasurement, read_record, write_record
from normlab.apps.probe.record import ProbeResult
from normlab.apps.probe.slopes import GRADIENT_DECAY, LAST_GRADIENT
from normlab.archive import tags
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError, NormlabError
from normlab.study.allocation import count_cores
from normlab.study.composition import compose_specs
from normlab.text import suggest_closest

Series = dict[str, list[float]]


@dataclass(frozen=True)
class MeasurementSize:
    """How much is measured: seeds, blocks of the deepest model, processes that time steps."""

    seeds: int
    depth: int
    processes: int


SIZES = {
    "quick": MeasurementSize(seeds=10, depth=32, processes=5),
    "standard": MeasurementSize(seeds=20, depth=32, processes=15),
    "full": MeasurementSize(seeds=30, depth=64, processes=30),
}


@dataclass(frozen=True)
class UntrainedMeasurement:
    """A function from size to series, and what a series goes over.

    The version goes up when the function comes to measure something else: what was stored is then
    measured again.
    """

    measure: Callable[[MeasurementSize], Series]
    over: str = "seed"
    version: int = 1


def check_measurement(name: str, claim: str) -> None:
    """Refuse a measurement that does not exist. Raises ConfigError."""
    if name not in MEASUREMENTS:
        raise ConfigError(
            f"claim={claim} asks for measurement={name}, which does not exist; "
            f"{suggest_closest(name, MEASUREMENTS)}choose from {', '.join(sorted(MEASUREMENTS))}."
        )


def define_measurement(name: str) -> dict[str, dict[str, float]]:
    """All that decides what is measured, by budget."""
    return {budget: _measurement_settings(name, budget) for budget in SIZES}


def read_measurement(name: str, budget: str, folder: Path) -> StoredMeasurement | None:
    """The measurement as it is stored; None where it is not, or had other settings.

    Raises:
        NormlabError: the file is damaged.
    """
    try:
        stored = read_record(_measurement_path(name, budget, folder), StoredMeasurement)
    except FileNotFoundError:
        return None
    return stored if stored.settings == _measurement_settings(name, budget) else None


def take_measurement(name: str, budget: str, folder: Path) -> StoredMeasurement:
    """Measure, and store it. Raises NormlabError."""
    from normlab.training.hardware import single_thread

    measurement = MEASUREMENTS[name]
    # On one thread the sums of such small tensors are always the same.
    with single_thread():
        series = measurement.measure(SIZES[budget])
    stored = StoredMeasurement(
        name,
        _measurement_settings(name, budget),
        measurement.over,
        # What is not finite was not measured: JSON could not hold it either.
        {key: values for key, values in series.items() if all(map(math.isfinite, values))},
        machine_name(),
        today(),
    )
    store_measurement(stored, budget, folder)
    return stored


def store_measurement(
    measurement: StoredMeasurement, budget: str, folder: Path, remedy: str = OUTPUT_REMEDY
) -> Path:
    """Write what was measured, and return the path; `remedy` ends the sentence of an error.

    Raises:
        NormlabError: it cannot be written.
    """
    path = _measurement_path(measurement.name, budget, folder)
    write_record(path, measurement, remedy)
    return path


def _measurement_settings(name: str, budget: str) -> dict[str, float]:
    return {"version": MEASUREMENTS[name].version, **asdict(SIZES[budget])}


def _measurement_path(name: str, budget: str, folder: Path) -> Path:
    return folder / "measured" / f"{name}-{budget}.json"


def today() -> str:
    """The date, as `2026-11-27`, in universal time."""
    return datetime.now(UTC).date().isoformat()


@cache
def machine_name() -> str:
    """`2-core AMD EPYC 9B14, torch 2.13.0`."""
    from normlab.training.hardware import processor_name

    return f"{count_cores()}-core {processor_name().strip()}, torch {version('torch')}"


def fit_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The least-squares slope of y on x; NaN for fewer than two different x."""
    try:
        return linear_regression(x, y).slope
    except StatisticsError:
        return math.nan


# ---- What depth does to a Transformer: gradients, the stream. At two initializations, that of
# Xiong et al.'s theory (2002.04745) and GPT-2's; the models are those of `scripts/probe.py`.

# With GPT-2's 1/√(2L) the stream's variance does not grow with L, so that Pre-LN's gradient has
# not the theory's slope −1/2: the two are reported apart.
_INITS = {
    "theory": ("experiment=theory_init",),
    "GPT": ("norm=layernorm", "model.width=64", "model.context=32"),
}
# The theory's decay towards the input is that of a model this deep.
DECAY_DEPTH = 8


def measure_depth(size: MeasurementSize) -> Series:
    """A slope for each seed, as `theory post: last gradient`."""
    from normlab.apps.probe.main import probe_models

    series: Series = {}
    seeds = ",".join(map(str, range(size.seeds)))
    # 2, 4, 8 and so on up to the deepest.
    depths = [2**k for k in range(1, size.depth.bit_length())]
    for init, overrides in _INITS.items():
        for placement in ("pre", "post", "sandwich"):
            # Of Peri-LN a claim needs the variance alone, which takes one depth.
            blocks = depths if placement != "sandwich" else [DECAY_DEPTH]
            depth = f"model.depth={','.join(map(str, blocks))}"
            probed = probe_models([*overrides, f"placement={placement}", depth, f"seed={seeds}"])
            for name, values in _depth_slopes(probed, blocks[-1]).items():
                series[f"{init} {placement}: {name}"] = values
    return series


def _depth_slopes(probed: ProbeResult, deepest: int) -> Series:
    (arm,) = probed.arms
    series: Series = defaultdict(list)
    for name, slope in (
        ("last gradient", probed.slope(arm, LAST_GRADIENT)),
        ("gradient decay", probed.slope(arm, GRADIENT_DECAY, DECAY_DEPTH)),
    ):
        series[name] = [] if slope is None else list(slope.seeds)
    for model in probed.models_of(arm, deepest):
        blocks = range(1, model.depth + 1)
        # How much a block adds to the mean square of the stream.
        squares = [rms**2 for rms in model.by_block(tags.STREAM_RMS)]
        series["mean square a block"].append(fit_slope(blocks, squares))
        # The power of the block with which the stream gains variance: 1 is linear growth.
        variances = model.by_block(tags.STREAM_VARIANCE)
        start = model.value(tags.STREAM_VARIANCE, "embedding")
        gains = [(l, v - start) for l, v in zip(blocks, variances, strict=True) if v - start > 0]
        logs = [math.log(l) for l, _ in gains], [math.log(gain) for _, gain in gains]
        series["variance gained"].append(fit_slope(*logs))
        # The slope of ln(variance of the stream) over the blocks: 0 is constant.
        series["variance"].append(fit_slope(blocks, list(map(math.log, variances))))
    return {name: values for name, values in series.items() if values}


# ---- By how much equations of RMSNorm and LayerNorm fail when their eps is zero (1910.07467).

_NORM_WIDTHS = (32, 48, 64, 96, 128)
_NOT_FINITE = 1e9  # an equation whose sides are not finite fails by as much as one likes


def measure_norm_equations(size: MeasurementSize) -> Series:
    """`rmsnorm weight scale` and so on: the largest difference relative to the output, by width."""
    from normlab.apps.card.invariances import measure_invariances
    from normlab.norms import norm_factory

    series: Series = defaultdict(list)
    for name, target in (("rmsnorm", "RMSNorm"), ("layernorm", "LayerNorm")):
        build_norm = norm_factory({"_target_": f"normlab.norms.{target}", "eps": 0.0})
        for width in _NORM_WIDTHS:
            for equation in measure_invariances(build_norm(width), width):
                deviation = _NOT_FINITE if equation.deviation is None else equation.deviation
                series[f"{name} {equation.name}"].append(deviation)
    return dict(series)


# ---- The first experiment of the MiniMind notes: layers of Linear and ReLU without a norm.

STACK_WIDTH, STACK_DEPTH, _STACK_INPUTS = 512, 24, 128
# Standard deviations that the notes print for their layers 1 to 5.
_PRINTED_STD = (1.04, 0.85, 0.62, 0.38, 0.21)
_LAST_LAYER = 8  # of the notes


def measure_linear_stack(size: MeasurementSize) -> Series:
    """Activations and gradients by depth of PyTorch's and Kaiming's initialization, by seed."""
    from normlab.apps.experiments.gradient_vanishing_measurement import (
        STACKS_WITHOUT_NORM,
        profile_stacks,
    )

    def log_slope(values: Sequence[float], first: int, last: int) -> float:
        return fit_slope(range(first, last + 1), [math.log(v) for v in values[first : last + 1]])

    series: Series = defaultdict(list)
    shape = STACK_WIDTH, STACK_DEPTH
    for seed in range(size.seeds):
        plain, _, kaiming = profile_stacks(
            STACKS_WITHOUT_NORM, *shape, [seed], _STACK_INPUTS, lambda _: None
        )
        std = plain.by_layer("std")
        series["std at layer 8"].append(std[_LAST_LAYER])
        series["std at layer 1"].append(std[1])
        # A signal that went on to vanish would have the slope ln √(1/6) = −0.896, a floor has 0.
        series["slope of ln std beyond layer 8"].append(log_slope(std, _LAST_LAYER, STACK_DEPTH))
        series["slope of ln gradient"].append(log_slope(plain.by_layer("gradient"), 0, _LAST_LAYER))
        series["share from the input at layer 8"].append(plain.by_layer("share")[_LAST_LAYER])
        errors = [
            abs(math.log(x / printed)) for x, printed in zip(std[1:], _PRINTED_STD, strict=False)
        ]
        series["error of the printed row"].append(max(errors))
        # Geometric mean over the layers of the notes.
        logs = [math.log(value) for value in kaiming.by_layer("std")[1 : _LAST_LAYER + 1]]
        series["std with Kaiming"].append(math.exp(math.fsum(logs) / len(logs)))
    return dict(series)


# ---- LayerNorm's time over RMSNorm's, of whole training steps of the same model.


def measure_step_times(size: MeasurementSize) -> Series:
    """`training step`: the ratio of two medians for every process.

    What a process decides, as where its memory lies, is the same for all steps that it times, so
    the unit is the process, and every ratio is from a new one (1910.07467 is about whole models).
    """
    from normlab.apps.claims.step_time import measure_in_new_processes

    check_quiet_machine()
    return {"training step": measure_in_new_processes(size.processes)}


def check_quiet_machine() -> None:
    """Refuse to time anything beside other work: a ratio of times would be of chance.

    Raises:
        NormlabError: more is running than there are cores.
    """
    load = os.getloadavg()[0]
    if load > count_cores():
        raise NormlabError(
            f"this machine is too busy to time anything (load {load:.1f} on {count_cores()} "
            f"cores); the same command measures it when it is quiet."
        )


# ---- How far the output moves when all weights move a little, over depth (2004.08249).

OUTPUT_CHANGE_DEPTHS = (2, 4, 8, 16, 32)
_PERTURBATIONS = 4  # of a model: one alone varies by half
_DELTA = 1e-3  # of a matrix's RMS, so small that the change is linear in it
_SEQUENCES = 8


def measure_output_change(size: MeasurementSize) -> Series:
    """How E‖Δ output‖² grows with L when the matrices of all blocks move, for each seed.

    `post: slope` is that of its logarithm on ln L: 1 is O(L). `post: logarithm over power` is ln of
    the error of the best power law c·L^p over that of the best a + b·ln L, both relative: above 0
    the logarithm describes it better.
    """
    series: Series = defaultdict(list)
    logs = [math.log(depth) for depth in OUTPUT_CHANGE_DEPTHS]
    placements = ("pre", "post")
    specs = compose_specs(*(["experiment=theory_init", f"placement={p}"] for p in placements))
    for placement, spec in zip(placements, specs, strict=True):
        for seed in range(size.seeds):
            changes = [_output_change(spec, depth, seed) for depth in OUTPUT_CHANGE_DEPTHS]
            series[f"{placement}: slope"].append(fit_slope(logs, list(map(math.log, changes))))
            series[f"{placement}: logarithm over power"].append(
                compare_growth_laws(OUTPUT_CHANGE_DEPTHS, changes)
            )
    return dict(series)


def compare_growth_laws(depths: Sequence[int], values: Sequence[float]) -> float:
    """Ln of the squared relative error of the best c·L^p over that of the best a + b·ln L.

    Both have two free numbers. Depths are different, values above 0, three of them or more.
    """
    logs, measured = np.log(np.array(depths, float)), np.array(values, float)
    power = np.exp(np.polyval(np.polyfit(logs, np.log(measured), 1), logs))
    # Weighted by 1 / value, as the logarithm of the power law is: errors count relative to it.
    logarithm = np.polyval(np.polyfit(logs, measured, 1, w=1 / measured), logs)
    errors = [float(np.square(law / measured - 1).sum()) for law in (power, logarithm)]
    return math.log(errors[0] / errors[1]) if min(errors) > 0 else math.nan


def _output_change(spec: RunSpec, depth: int, seed: int) -> float:
    """The mean squared change of a token's logits, over some perturbations."""
    import torch

    from normlab.training.build import build_model
    from normlab.training.probes import output_change

    vocabulary = int(spec.plain["data"]["vocabulary"])
    shape = replace(spec.config.model, depth=depth)
    model = build_model(replace(spec.config, model=shape, seed=seed), vocabulary)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(vocabulary, (_SEQUENCES, shape.context), generator=generator)
    # No two seeds share a perturbation.
    first = seed * _PERTURBATIONS
    return fmean(
        output_change(model, tokens, _DELTA, first + number) for number in range(_PERTURBATIONS)
    )


MEASUREMENTS = {
    "depth": UntrainedMeasurement(measure_depth),
    "invariances": UntrainedMeasurement(measure_norm_equations, over="width"),
    "linear_stack": UntrainedMeasurement(measure_linear_stack),
    # Version 1 moved embedding and head too, which adds a constant in L and flattened both laws.
    "output_change": UntrainedMeasurement(measure_output_change, version=2),
    "step_time": UntrainedMeasurement(measure_step_times, over="process"),
}
