"""`run.json`: what a run is, how it stands and what it reached."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from normlab.archive.durable import write_text
from normlab.archive.restore import read_json, restored
from normlab.errors import NormlabError

SCHEMA_VERSION = 1
RUN_FILE = "run.json"

# What else a run leaves in its folder.
CONFIG_FILE = "config.yaml"
VOCABULARY_FILE = "vocabulary.json"
LOG_FILE = "train.log"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
BEST_CHECKPOINT = "checkpoints/best.ckpt"

# An interrupted run was stopped from outside, and goes on where it was.
State = Literal["running", "finished", "diverged", "failed", "interrupted"]


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
    is the resolved configuration as plain containers; `floor` is the lowest loss any model can
    reach on the data, in nats per token, or None where nobody knows it.
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
    step: int = 0
    final: FinalNumbers = field(default_factory=FinalNumbers)
    best: BestNumbers = field(default_factory=BestNumbers)
    diverged_step: int | None = None
    floor: float | None = None
    parameters: int | None = None
    tokens_per_second: float | None = None
    train_seconds: float | None = None
    precision: str | None = None
    device: str | None = None
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    started: str = ""
    ended: str | None = None
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write `run.json` into the run's folder, atomically. Raises OSError."""
        text = json.dumps(_finite(asdict(self)), indent=2, allow_nan=False)
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
            return cls.parse(read_json(path))
        except ValueError as error:
            raise NormlabError(
                f"{path} is damaged or was written by another version ({error}); "
                f"remove the folder to train the run again."
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
        return record


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return cast(Any, value)
