"""`run.json`: what a run is, how it stands and what it reached; its id, its name and its files."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from normlab.archive.files import read_bytes, suggest_closest_path, write_text
from normlab.archive.versioned_json import (
    check_checksum,
    compute_checksum,
    read_json,
    restore_value,
)
from normlab.errors import ConfigError, NormlabError
from normlab.text import excerpt

SCHEMA_VERSION = 1
RUN_FILE = "run.json"

# What else a run leaves in its folder.
CONFIG_FILE = "config.yaml"
VOCABULARY_FILE = "vocabulary.json"
LOG_FILE = "train.log"
EVENT_FILES = "events.out.tfevents*"  # TensorBoard's, of the curves
LAST_CHECKPOINT = "checkpoints/last.ckpt"
PREVIOUS_CHECKPOINT = "checkpoints/previous.ckpt"
BEST_CHECKPOINT = "checkpoints/best.ckpt"

# What filesystems take, in bytes: a name, and a path with space for what stands below it.
_LONGEST_NAME, _LONGEST_PATH = 255, 3000

# Bounds of what a record may say: a stranger's run.json becomes rows, columns and axes.
_COUNTS = ("step", "seed", "diverged_step", "parameters", "tokens_per_second", "train_seconds")
_LARGEST_COUNT = 10**12  # steps, parameters, tokens a second: more than any run has
_LARGEST_LOSS = 100.0  # nats; a uniform guess among 10^43 tokens
_MOST_THREADS = 1024
# As in a configuration that is read (config/safe_yaml.py).
_MOST_VALUES, _LONGEST_TEXT = 2_000, 4_000

# Of a configuration, which may be of any version: what results are sorted by and compared in, with
# its type and, of a number, the range that a run can have been trained with.
_SETTINGS: dict[str, dict[str, tuple[Any, ...]]] = {
    "data": {"kind": (str,)},
    "model": {"depth": (int, 1, _LARGEST_COUNT), "width": (int, 1, _LARGEST_COUNT)},
    "optimizer": {"lr": (float, 1e-30, 1e30)},
    "schedule": {"warmup": (float, 0, 1)},
    "trainer": dict.fromkeys(("max_steps", "val_every", "log_every"), (int, 1, _LARGEST_COUNT)),
    "probes": {},
}

# Keys that cannot change results, and so are not in a run's id; `budget` is only where
# trainer.max_steps and trainer.val_every come from.
NEUTRAL_KEYS = (
    *("study", "output_dir", "jobs", "margin", "target"),
    *("measure", "figure", "logger", "budget"),
)
NEUTRAL_TRAINER_KEYS = ("log_every", "save_seconds", "gradient_checkpointing")

_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# An interrupted run was stopped from outside, and goes on where it was.
State = Literal["running", "finished", "diverged", "failed", "interrupted"]
INVALID = "INVALID"  # begins the name of what was trained without the check for leaks
SETTLED_STATES = ("finished", "diverged")  # results that need no more training


@dataclass
class FinalNumbers:
    """Losses in nats per token at the last step; None where they are not finite or not known.

    Of a run that diverged, `train_loss` is the last before the divergence.
    `selection_loss` and `test_loss` are those of the validation windows of even and of odd index;
    see `normlab.training.module.ValidationLoss`.
    """

    val_loss: float | None = None
    train_loss: float | None = None
    selection_loss: float | None = None
    test_loss: float | None = None


@dataclass
class BestNumbers:
    """The lowest validation loss seen (nats per token) and the step it was seen at."""

    val_loss: float | None = None
    step: int | None = None


@dataclass(frozen=True)
class GitState:
    """The commit of normlab's own sources, and whether they differed from it."""

    commit: str
    dirty: bool = False

    @property
    def short_name(self) -> str:
        """The commit as sentences name it."""
        return short_commit(self.commit) + (" with changes" if self.dirty else "")


@dataclass
class RunRecord:
    """One run. The names are fixed: others script against them.

    `choices` names the option taken in every group of conf/ (`{"model": "nanogpt", …}`), `config`
    is the resolved configuration as plain containers; `git` is the commit of normlab's own sources,
    with `dirty`, where they are a repository; `resumed_at` the steps at which the run went on after
    it was stopped; `data_digest` tells one text from another under the same name; `files` are the
    digests of the small files beside this one; `sources` those of the source files of the user's
    own classes, by module; `floor` is the lowest loss any model can reach on the data, in nats per
    token, or None where nobody knows it; `unigram` the lowest of one that ignores the context.
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
    sources: dict[str, str] = field(default_factory=dict)
    parameters: int | None = None
    tokens_per_second: float | None = None
    train_seconds: float | None = None
    precision: str | None = None
    device: str | None = None
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    git: GitState | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    resumed_at: list[int] = field(default_factory=list)
    started: str = ""
    ended: str | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def threads(self) -> int | None:
        """The threads that it was trained with, where it says a number that can be."""
        threads = self.hardware.get("threads")
        # By `type`, because True is an int.
        return threads if type(threads) is int and 1 <= threads <= _MOST_THREADS else None

    @property
    def kernels(self) -> str | None:
        """The instructions of the CPU kernels that it was trained with, where it says them."""
        kernels = self.hardware.get("kernels")
        return kernels if isinstance(kernels, str) else None

    @property
    def stacked(self) -> bool:
        """Whether it was trained in a stack, by other kernels than a run alone."""
        return isinstance(self.hardware.get("stack"), dict)

    def write(self, folder: Path) -> None:
        """Write `run.json` into the run's folder, atomically. Raises OSError."""
        raw = _replace_nonfinite(asdict(self))
        text = json.dumps({**raw, "checksum": compute_checksum(raw)}, indent=2, allow_nan=False)
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
        except ValueError as error:  # errors of JSON and of UTF-8 are ValueErrors too
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
                f"{folder} holds no run ({error.strerror}); "
                f"{suggest_closest_path(folder, RUN_FILE)}give outputs/<study>/<run>."
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
        record: RunRecord = restore_value(cls, raw)
        record.check_ranges()
        return record

    @property
    def last_step(self) -> int | None:
        """The step at which it is finished; None where its configuration does not tell."""
        trainer = self.config.get("trainer")
        steps = trainer.get("max_steps") if isinstance(trainer, dict) else None
        return steps if isinstance(steps, int) else None

    @property
    def end_step(self) -> int:
        """The step at which it diverged, or else the last one that it reached."""
        return self.step if self.diverged_step is None else self.diverged_step

    def check_ranges(self) -> None:
        """Refuse what no run writes, whatever its types.

        Raises:
            ValueError: a count or a loss out of range, a name that is longer than names are, a part
                that is larger than configurations are, or a finished run not at its last step.
        """
        last, diverged = self.last_step, self.diverged_step
        if self.state == "finished" and last is not None and self.step != last:
            raise ValueError(f"it says finished, at step {self.step} of {last}")
        if diverged is not None and diverged > self.step:
            raise ValueError(f"it diverged at step {diverged}, after its last, {self.step}")
        self._check_settings()
        counts = {key: getattr(self, key) for key in _COUNTS} | {"best.step": self.best.step}
        counts |= {f"resumed_at[{n}]": step for n, step in enumerate(self.resumed_at)}
        for key, value in counts.items():
            if value is not None and not 0 <= value <= _LARGEST_COUNT:
                raise ValueError(f"{key} is {value}, not a number from 0 to {_LARGEST_COUNT}")
        for key, loss in (("floor", self.floor), ("unigram", self.unigram)):
            if loss is not None and not 0 <= loss <= _LARGEST_LOSS:
                raise ValueError(f"{key} is {loss}, not a loss from 0 to {_LARGEST_LOSS}")
        for key in ("config", "choices", "versions", "sources", "hardware"):
            _check_size(key, getattr(self, key))
        names = (self.id, self.name, self.norm, self.placement, self.data)
        commit = self.git.commit if self.git else ""
        for name in (*names, *self.choices, *self.choices.values(), commit):
            if len(name) > _LONGEST_NAME:
                raise ValueError(f"it holds a name of {len(name)} characters")

    def _check_settings(self) -> None:
        for name, settings in _SETTINGS.items():
            section = self.config.get(name, {})
            if not isinstance(section, dict):
                raise ValueError(f"config.{name} is no section")
            for key, (kind, *ends) in settings.items():
                if key not in section:
                    continue
                value = restore_value(kind, section[key], f"config.{name}.{key}")
                if ends and not ends[0] <= value <= ends[1]:
                    raise ValueError(
                        f"config.{name}.{key} is {value}, not a number from {ends[0]} to {ends[1]}"
                    )


def read_result(folder: Path) -> RunRecord | None:
    """The record of a run that has a result, finished or diverged; None where it has none.

    Numbers without the curves that bear them out are no result.
    """
    try:
        record = RunRecord.read(folder)
        has_curves = any(path.stat().st_size for path in folder.glob(EVENT_FILES))
    except (OSError, NormlabError):
        return None
    return record if record.state in SETTLED_STATES and has_curves else None


def _check_size(key: str, value: Any) -> None:
    """Refuse what is larger than any configuration. Raises ValueError."""
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


def _replace_nonfinite(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {key: _replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nonfinite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return cast(Any, value)


# --- Id and name --------------------------------------------------------------------------------


def compute_run_id(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the resolved configuration, without what cannot matter."""
    decisive = {key: value for key, value in config.items() if key not in NEUTRAL_KEYS}
    trainer = config.get("trainer", {})
    decisive["trainer"] = {k: v for k, v in trainer.items() if k not in NEUTRAL_TRAINER_KEYS}
    # Any change of this text gives every stored run another id, and has it trained again.
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(norm: str, placement: str, lr: float, seed: int, identifier: str) -> str:
    """`rmsnorm-pre-lr3e-3-s0-1a2b3c4d`: readable, unique, and safe as the name of a folder."""
    arm = "-".join(arm_name_parts(norm, placement))
    # No name of a norm leads out of the study, hides the folder or looks like a flag.
    arm = re.sub(r"[^A-Za-z0-9._-]", "_", arm).lstrip("._-")[:48]
    # From 0.01 to 0.1 otherwise than short_number: the folders of runs have always had this.
    rate = f"{lr:g}" if 0.01 < abs(lr) < 0.1 else short_number(lr)
    return f"{arm}-lr{rate}-s{seed}-{identifier}"


def arm_name_parts(norm: str, placement: str) -> list[str]:
    """Norm and placement as an arm's name has them: `any`, which makes no difference, is absent."""
    return [part for part in (norm, placement) if part != "any"]


def short_number(value: float) -> str:
    """3e-2, 1.5e-4, 0.1 or 12: as a number of a configuration, or a tick, is written everywhere."""
    if value == 0 or 0.1 <= abs(value) < 1e4:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def short_commit(commit: str) -> str:
    """The first characters of a commit's hash, as pages and sentences show it."""
    return commit[:7]


def check_study_name(name: str) -> None:
    """Refuse a study name that is not the plain name of a folder.

    Raises:
        ConfigError: it holds a separator, begins with a dot, or is too long.
    """
    if not _STUDY_NAME.fullmatch(name):
        raise ConfigError(
            f"study={excerpt(repr(name))} cannot be the name of a folder; use up to 64 letters, "
            f"digits, dots, dashes and underscores, beginning with a letter or digit."
        )


def check_output_dir(path: str) -> None:
    """Refuse a path that no folder can have; the user may choose any other.

    Raises:
        ConfigError: it is empty, holds what cannot be printed, or is too long.
    """
    # From a variable of the shell that is not set, more often than meant.
    if not path:
        raise ConfigError(
            "output_dir= is empty; give a folder for the studies, . for the current one."
        )
    size = max(len(name.encode()) for name in path.split("/"))
    if not path.isprintable() or size > _LONGEST_NAME or len(path.encode()) > _LONGEST_PATH:
        raise ConfigError(
            f"output_dir={path[:60]!r}… cannot be a folder; give a path whose names have up to "
            f"{_LONGEST_NAME} bytes, all of which can be printed."
        )


# --- The run's other files ----------------------------------------------------------------------


def write_run_file(folder: Path, record: RunRecord, name: str, text: str) -> None:
    """Write a small file of a run, and before that its digest (SHA-256) into the record.

    Raises:
        OSError: the folder cannot be written.
    """
    # The digest first: of a file without one, nobody would notice that it is missing.
    record.files[name] = hashlib.sha256(text.encode()).hexdigest()
    record.write(folder)
    write_text(folder / name, text)


def describe_file_change(folder: Path, record: RunRecord, name: str) -> str:
    """What is wrong with the small file `name` of a run; empty where it is as the run wrote it.

    Where the record has no digest of it, nothing is wrong.
    """
    if name not in record.files:
        return ""
    try:
        digest = hashlib.sha256(read_bytes(folder / name)).hexdigest()
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return "" if digest == record.files[name] else f"{name} is not what the run wrote"


def list_file_changes(folder: Path, record: RunRecord) -> list[str]:
    """What is wrong with the files of a run that are missing or changed, as in `x is missing`.

    Of checkpoints only the presence is checked, and only for finished runs.
    """
    problems = [
        describe_file_change(folder, record, name) for name in (CONFIG_FILE, VOCABULARY_FILE)
    ]
    # Records without digests are older than these checks, and nothing is said of their files.
    if record.files and record.state == "finished":
        for name in (LAST_CHECKPOINT, BEST_CHECKPOINT):
            problems += [] if (folder / name).is_file() else [f"{name} is missing"]
    return [problem for problem in problems if problem]


def describe_file_changes(folder: Path, problems: Sequence[str], others: int = 0) -> str:
    """One sentence about what `list_file_changes` found; empty where that is nothing.

    `others` is the number of further runs of which the same holds.
    """
    if not problems:
        return ""
    runs, each = (f" and {others} more of its study", "these runs") if others else ("", "this run")
    return (
        f"{folder}{runs}: {', '.join(problems)}; tables and figures do without, but "
        f"scripts/sample.py and --from may give something else than {each}."
    )


def describe_folder_changes(folder: Path) -> str:
    """The same for a folder whose record has not been read, or cannot be."""
    try:
        record = RunRecord.read(folder)
    except (OSError, NormlabError):
        return (
            f"{folder / RUN_FILE} cannot be read, so nothing tells whether the run's other files "
            f"are what it wrote."
        )
    return describe_file_changes(folder, list_file_changes(folder, record))
