"""A run to be trained: its typed configuration, its names, its folder and its result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normlab.archive.record import RunRecord, read_result
from normlab.config.schema import TrainConfig
from normlab.errors import NormlabError


@dataclass(frozen=True)
class RunSpec:
    """A run to be trained: the typed configuration, the same as plain containers, and its names."""

    config: TrainConfig
    plain: dict[str, Any]
    choices: dict[str, str]
    id: str
    name: str

    @property
    def study_folder(self) -> Path:
        """The folder of its study."""
        return Path(self.config.output_dir) / self.config.study

    @property
    def folder(self) -> Path:
        """Where this run's results are: also when the same network first came by another name.

        Mix-LN of three blocks, for one, is Pre-LN.
        """
        own = self.study_folder / self.name
        if own.is_dir():  # first, because a look at all folders of a large study takes its time
            return own
        existing = sorted(self.study_folder.glob(f"*-{self.id}"))
        return existing[0] if existing else own

    def read_result(self) -> RunRecord | None:
        """The record of this run, finished or diverged; None where it has no result yet.

        Raises:
            NormlabError: another run lies in its folder.
        """
        record = read_result(self.folder)
        if record is None:
            return None
        if record.id != self.id:
            raise NormlabError(
                f"{self.folder} holds another run, {record.name}; move that to the folder it came "
                f"from, or delete it, and the same command trains this one."
            )
        # A record that says finished before the last step is not believed.
        has_ended = record.state == "diverged" or record.last_step == self.config.trainer.max_steps
        return record if has_ended else None


def changed_text_message(spec: RunSpec) -> str:
    """The sentence about a run whose text has changed since it began."""
    reason = describe_changed_text(spec)
    return f"{spec.folder}: {reason}; give the new text a study of its own, study=…"


def describe_changed_text(spec: RunSpec) -> str:
    """What has happened to a run's text."""
    path = spec.plain["data"].get("path")
    return f"it was trained on another text than the one that is now at data.path={path}"
