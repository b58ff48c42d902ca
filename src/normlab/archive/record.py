"""`run.json`: what a run is, how it stands and what it reached."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from normlab.archive.durable import write_text
from normlab.archive.restore import read_json, restored
from normlab.archive.stamped import check_checksum, checksum
from normlab.errors import NormlabError

SCHEMA_VERSION = 1
RUN_FILE = "run.json"

# What else a run leaves in its folder.
CONFIG_FILE = "config.yaml"
VOCABULARY_FILE = "vocabulary.json"
LOG_FILE = "train.log"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
PREVIOUS_CHECKPOINT = "checkpoints/previous.ckpt"
BEST_CHECKPOINT = "checkpoints/best.ckpt"

_COUNTS = ("step", "seed", "diverged_step", "parameters", "tokens_per_second", "train_seconds")
_MOST_THREADS = 1024
# Of a configuration, which may be of any version: what results are sorted by and compared in.
_SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"kind": str},
    "model": {"depth": int, "width": int},
    "optimizer": {"lr": float},
    "schedule": {"warmup": float},
    "trainer": {"max_steps": int, "val_every": int, "log_every": int},
    "probes": {},
}
_LONGEST_NAME = 255  # as in a filesystem
_MOST = 10**12  # steps, parameters, tokens a second: more than any run has
_MOST_LOSS = 100.0  # nats; a uniform guess among 10^43 tokens
# As in a configuration that is read (config/safe_yaml.py).
_MOST_VALUES, _LONGEST_TEXT = 2_000, 4_000

# An interrupted run was stopped from outside, and goes on where it was.
State = Literal["running", "finished", "diverged", "failed", "interrupted"]
SETTLED = ("finished", "diverged")  # results that need no more training


@dataclass
class FinalNumbers:
    """Losses in nats per token at the last step; None where they are not finite or not known."""

    val_loss: float | None = None
    train_loss: float | None = None


@dataclass
class BestNumbers:
    """The lowest validation loss seen (nats per token) and the step it was seen at."""

    val_loss: float | None = None
    step: int | None = None


@dataclass
class RunRecord:
    """One run. The names are fixed: others script against them.

    `choices` names the option taken in every group of conf/ (`{"model": "nanogpt", …}`), `config`
    is the resolved configuration as plain containers; `git` is the commit of normlab's own sources,
    with `dirty`, where they are a repository; `resumed_at` the steps at which the run went on after
    it was stopped; `data_digest` tells one text from another under the same name; `files` are the
    digests of the small files beside this one; `floor` is the lowest loss any model can reach on
    the data, in nats per token, or None where nobody knows it; `unigram` the lowest of one that
    ignores the context.
    """

    id: str
    name: str
    norm: str
    placement: str
    data: str
    seed: int
    choices: dict[str, str]
    config: dict[str, Any]
    state: State = "running"
    reason: str | None = None
    traceback: str | None = None
    step: int = 0
    final: FinalNumbers = field(default_factory=FinalNumbers)
    best: BestNumbers = field(default_factory=BestNumbers)
    diverged_step: int | None = None
    floor: float | None = None
    unigram: float | None = None
    data_digest: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    parameters: int | None = None
    tokens_per_second: float | None = None
    train_seconds: float | None = None
    precision: str | None = None
    device: str | None = None
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    resumed_at: list[int] = field(default_factory=list)
    started: str = ""
    ended: str | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def threads(self) -> int | None:
        """The threads that it was trained with, where it says a number that can be."""
        threads = self.hardware.get("threads")
        return threads if type(threads) is int and 1 <= threads <= _MOST_THREADS else None

    def write(self, folder: Path) -> None:
        """Write `run.json` into the run's folder, atomically. Raises OSError."""
        raw = _finite(asdict(self))
        text = json.dumps({**raw, "checksum": checksum(raw)}, indent=2, allow_nan=False)
        write_text(folder / RUN_FILE, text + "\n")

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """Read a run's folder back.

        Raises:
            FileNotFoundError: there is no `run.json`.
            NormlabError: it is damaged, or was written by a newer normlab.
        """
        path = folder / RUN_FILE
        try:
            raw = read_json(path)
            check_checksum(raw)
            return cls.parse(raw)
        except ValueError as error:
            raise NormlabError(
                f"{path} is damaged or was written by another version ({error}); "
                f"the command that made the run trains it again."
            ) from error

    @classmethod
    def read_for_user(cls, folder: Path) -> "RunRecord":
        """The same for a folder that a user named: what is missing is a sentence too.

        Raises:
            NormlabError: it holds no `run.json` that can be read.
        """
        try:
            return cls.read(folder)
        except OSError as error:
            raise NormlabError(
                f"{folder} holds no run ({error.strerror}); give outputs/<study>/<run>."
            ) from error

    @classmethod
    def parse(cls, raw: Any) -> "RunRecord":
        """A record from what `run.json` holds; unknown keys are passed over.

        Raises:
            ValueError: it is not such an object.
        """
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ValueError(f"its schema version is {version}, this reads {SCHEMA_VERSION}")
        record: RunRecord = restored(cls, raw)
        record.check()
        return record

    @property
    def last_step(self) -> int | None:
        """The step at which it is finished; None where its configuration does not tell."""
        trainer = self.config.get("trainer")
        steps = trainer.get("max_steps") if isinstance(trainer, dict) else None
        return steps if isinstance(steps, int) else None

    def check(self) -> None:
        """Refuse what no run writes, whatever its types.

        Raises:
            ValueError: a count or a loss out of range, a name that is longer than names are, a part
                that is larger than configurations are, or a finished run not at its last step.
        """
        self._check_steps()
        self._check_settings()
        counts = {key: getattr(self, key) for key in _COUNTS} | {"best.step": self.best.step}
        counts |= {f"resumed_at[{n}]": step for n, step in enumerate(self.resumed_at)}
        for key, value in counts.items():
            if value is not None and not 0 <= value <= _MOST:
                raise ValueError(f"{key} is {value}, not a number from 0 to {_MOST}")
        for key, loss in (("floor", self.floor), ("unigram", self.unigram)):
            if loss is not None and not 0 <= loss <= _MOST_LOSS:
                raise ValueError(f"{key} is {loss}, not a loss from 0 to {_MOST_LOSS}")
        for key in ("config", "choices", "versions", "hardware", "git"):
            _check_size(key, getattr(self, key))
        names = (self.id, self.name, self.norm, self.placement, self.data)
        for name in (*names, *self.choices, *self.choices.values()):
            if len(name) > _LONGEST_NAME:
                raise ValueError(f"it holds a name of {len(name)} characters")

    def _check_steps(self) -> None:
        last, diverged = self.last_step, self.diverged_step
        if self.state == "finished" and last is not None and self.step < last:
            raise ValueError(f"it says finished, at step {self.step} of {last}")
        if diverged is not None and diverged > self.step:
            raise ValueError(f"it diverged at step {diverged}, after its last, {self.step}")

    def _check_settings(self) -> None:
        for section, kinds in _SETTINGS.items():
            part = self.config.get(section, {})
            if not isinstance(part, dict):
                raise ValueError(f"config.{section} is no section")
            for key, kind in kinds.items():
                if key in part:
                    restored(kind, part[key], f"config.{section}.{key}")


def _check_size(key: str, value: Any) -> None:
    """Refuse what is larger than any configuration: it would be a row, or a column, each."""
    count, pending = 0, [value]
    while pending:
        item = pending.pop()
        count += 1
        if isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str) and len(item) > _LONGEST_TEXT:
            raise ValueError(f"{key} holds a text of {len(item):,} characters")
        if count > _MOST_VALUES:
            raise ValueError(f"{key} holds more than {_MOST_VALUES:,} keys and values")


def settled(folder: Path) -> RunRecord | None:
    """The record of a run that has a result, finished or diverged; None where there is none."""
    try:
        record = RunRecord.read(folder)
    except (OSError, NormlabError):
        return None
    return record if record.state in SETTLED else None


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return cast(Any, value)
