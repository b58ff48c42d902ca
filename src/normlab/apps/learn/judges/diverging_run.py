"""A configuration that diverges near step 100, to be mended: the check trains the run.

It has two faults: there is no norm, so the run diverges; and with a norm the placement, Post-LN,
learns nothing at this depth and rate, which only a run that does not diverge can show.
"""

import json
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normlab.apps.learn.judges.mistake import MistakeError, read_configuration
from normlab.archive.record import RunRecord
from normlab.config.gate import check_overrides
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError, NormlabError
from normlab.study.composition import compose_specs
from normlab.text import excerpt

# What of the run must stay as it is: with fewer blocks or another rate it is another problem.
FIXED_KEYS: dict[str, Any] = {
    "model.depth": 16,
    "model.width": 32,
    "trainer.max_steps": 240,
    "optimizer.lr": 0.02,
}
# What the file need not say: a small run that is the same with any number of threads. Its language
# repeats itself early, so that 240 steps are enough to learn something.
_BASE_SETTINGS = (
    "model.heads=2",
    "model.context=32",
    "model.tie=false",
    "model.init.embedding=1",
    "data.concentration=0.02",
    "data.batch_size=8",
    "data.validation_windows=32",
    "trainer.val_every=120",
    "trainer.precision=32-true",
    "trainer.device=cpu",
    "trainer.threads=1",
)
# A key of the run alone: no group that moves, and nothing of Hydra's own.
_RUN_KEY = re.compile(r"(?!hydra\b)[a-z_]+(\.\w+)*")
# The loss of a uniform guess of eight tokens is ln 8 = 2.079. With RMSNorm and Pre-LN the run ends
# at 1.68 to 1.78 (by warm-up and clipping).
MOST_LOSS = 1.95


def judge_nan_at_step_100(path: Path) -> None:
    """Train the learner's configuration: it must not diverge, and must learn.

    Raises:
        MistakeError: it diverges, learns nothing, or is another problem than the one to solve.
    """
    # Lightning takes seconds to import; no other exercise needs it.
    from normlab.training.run import train

    with tempfile.TemporaryDirectory() as folder:
        judge_run(train(compose_run(path, Path(folder)), "", SilentDisplay()))


def compose_run(path: Path, folder: Path) -> RunSpec:
    """The run that a file of dotted keys asks for, in this folder.

    Raises:
        MistakeError: the file cannot be read or composed, or a fixed key has another value.
    """
    settings = read_configuration(path)
    if not isinstance(settings, Mapping) or not settings:
        raise MistakeError(
            "the file holds no settings; each line is a key: value, as norm: rmsnorm."
        )
    for key, value in FIXED_KEYS.items():
        if settings.get(key) != value:
            raise MistakeError(
                f"{key} is {settings.get(key, 'missing')}; it must stay {value}: the exercise is "
                f"to train this model at this rate."
            )
    chosen = [
        # Hydra writes null, true and false as JSON does.
        f"{key}={json.dumps(value) if isinstance(value, bool | None) else value}"
        for key, value in settings.items()
    ]
    overrides = [*_BASE_SETTINGS, *chosen, f"output_dir={folder}", "study=exercise"]
    try:
        for key in settings:
            if not _RUN_KEY.fullmatch(str(key)):
                raise ConfigError(
                    f"{excerpt(key)} is not a key of a run; write one as model.depth."
                )
        check_overrides(chosen)
        return compose_specs(overrides)[0]
    except NormlabError as error:
        raise MistakeError(str(error)) from error


def judge_run(record: RunRecord) -> None:
    """Refuse a run that diverged, failed, or has learned nothing.

    Raises:
        MistakeError: with the step or the loss that was measured.
    """
    if record.state == "diverged":
        cause = (
            "norm is none, so the stream grows with every block"
            if record.norm == "none"
            else "look at the norm at the input of every sublayer, at trainer.gradient_clip and "
            "at the warm-up"
        )
        raise MistakeError(
            f"the run diverges at step {record.diverged_step}: {record.reason}. The first fault "
            f"remains: {cause}. A second fault cannot be seen before this one is mended."
        )
    loss = record.final.val_loss
    if record.state != "finished" or loss is None or not math.isfinite(loss):
        raise MistakeError(f"the run did not finish ({record.state}: {record.reason}).")
    if loss > MOST_LOSS:
        cause = (
            "with placement: post every norm stands on the residual path, and 16 blocks do not "
            "learn at this rate"
            if record.placement == "post"
            else "look at placement, trainer.gradient_clip and schedule.warmup"
        )
        raise MistakeError(
            f"the run does not diverge any more, and has learned nothing: its validation loss is "
            f"{loss:.3f} nats, that of a uniform guess is {math.log(8):.3f}, and below {MOST_LOSS} "
            f"is required. The second fault remains: {cause}."
        )


class SilentDisplay:
    """A display that shows no progress."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Nothing is shown."""

    def say(self, sentence: str) -> None:
        """Nothing is shown."""
