"""What probes wrote in a run, as fields over depth and steps: one for an arm and a quantity."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from normlab.analysis.arms import Arm
from normlab.analysis.curves import averaged
from normlab.analysis.statistics import mean_interval
from normlab.archive import tags
from normlab.archive.study import Run

_BLOCK = re.compile(r"block_(\d+)(/|$)")


@dataclass(frozen=True)
class Field:
    """One quantity of an arm by depth and step: the mean over its runs.

    Attributes:
        steps: optimizer steps at which it was measured, increasing.
        depths: where each site stands, in blocks: a block's sites divide the stretch from its
            number less one to its number. Increasing, from bottom to top, with the end of the last.
        values: (sites, steps); NaN or infinite where a run was.
        end: the step at which the runs ended, at least one after the first measurement.
        runs: how many runs the mean is of.
    """

    steps: NDArray[np.int64]
    depths: NDArray[np.float64]
    values: NDArray[np.float64]
    end: int
    runs: int


def quantities(arms: Sequence[Arm]) -> list[str]:
    """The quantities that were measured at some block of some arm, in the order of their tags."""
    runs = [run for arm in arms for run in arm.runs]
    found = {tags.split_probe_tag(tag): None for run in runs for tag in run.events.scalars}
    return list(dict.fromkeys(key[0] for key in found if key and _BLOCK.match(key[1])))


def field(arm: Arm, quantity: str) -> Field | None:
    """The field of an arm; None where none of its runs was probed for it.

    The mean is that of the runs whose mean its curves are; where none stands, of the first that
    was probed, however it ended.
    """
    probed = [run for run in averaged(arm) if _sites(run, quantity)]
    probed = probed or [run for run in arm.runs if _sites(run, quantity)][:1]
    if not probed:
        return None
    sites = _sites(probed[0], quantity)
    series = [
        [run.events.scalars[tags.probe_tag(quantity, site)] for site in sites] for run in probed
    ]
    steps = series[0][0].steps
    for one in (one for some in series for one in some):
        steps = np.intersect1d(steps, one.steps)
    if not steps.size:
        return None
    values = np.array([[one.values[np.isin(one.steps, steps)] for one in some] for some in series])
    end = max(int(steps[-1]), int(steps[0]) + 1, *(run.record.step for run in probed))
    with np.errstate(invalid="ignore"):  # infinities of both signs have no mean
        return Field(steps, _depths(sites), values.mean(axis=0), end, len(probed))


def best(arms: Sequence[Arm], most: int) -> list[Arm]:
    """So many of the probed arms, those with the lowest validation loss, in their order."""
    every = [arm for arm in {arm.label: arm for arm in arms}.values() if quantities([arm])]
    chosen = sorted(every, key=_loss)[:most]
    return [arm for arm in every if arm in chosen]


def _loss(arm: Arm) -> float:
    losses = [run.record.best.val_loss for run in arm.with_state("finished")]
    mean = mean_interval([loss for loss in losses if loss is not None])[0]
    return math.inf if math.isnan(mean) else mean


def _sites(run: Run, quantity: str) -> list[str]:
    """The sites inside blocks, in the order of depth."""
    keys = map(tags.split_probe_tag, run.events.scalars)
    found = [key[1] for key in keys if key and key[0] == quantity and _BLOCK.match(key[1])]
    return sorted(found, key=_block)  # stable: within a block as they were written


def _block(site: str) -> int:
    matched = _BLOCK.match(site)
    return int(matched[1]) if matched else 0


def _depths(sites: Sequence[str]) -> NDArray[np.float64]:
    blocks = [_block(site) for site in sites]
    starts = [
        block - 1 + blocks[:at].count(block) / blocks.count(block)
        for at, block in enumerate(blocks)
    ]
    return np.array([*starts, blocks[-1]], float)
