"""What TensorBoard gets of a run: curves, HParams with final numbers, a layout, a text card."""

import html
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from normlab.archive import tags
from normlab.archive.files import LARGEST_EVENT_FILE, read_bytes, replace_atomically, sync_to_disk
from normlab.archive.record import EVENT_FILES, RunRecord
from normlab.config.schema import LoggerConfig
from normlab.errors import NormlabError
from normlab.text import one_line, printable
from normlab.training.lightning import TensorBoardLogger

# Custom Scalars page: what belongs together in one chart.
_LAYOUT = {
    "Loss": {
        "training": ["Multiline", [tags.TRAIN_LOSS]],
        "validation": ["Multiline", [tags.VALIDATION_LOSS]],
        "best validation": ["Multiline", [tags.BEST_VALIDATION_LOSS]],
    },
    "Optimization": {
        "gradient norm before clipping": ["Multiline", [tags.GRADIENT_NORM]],
        "learning rate": ["Multiline", [tags.LEARNING_RATE]],
    },
    "Speed": {"tokens per second": ["Multiline", [tags.TOKENS_PER_SECOND]]},
}

# What is added to it with probes: every site is a line of the chart.
_PROBES_LAYOUT = {
    "Probes": {
        meaning: ["Multiline", [tags.probe_tag(quantity, ".*")]]
        for quantity, meaning in tags.QUANTITIES.items()
        if quantity != tags.STREAM_GRADIENT  # only measured at initialization
    }
}

_BINS = 30  # of a histogram; as many as its page draws

# Further columns of the HParams page: what people compare, not every key.
_SETTINGS = (
    "optimizer.weight_decay",
    "schedule.decay",
    "schedule.warmup",
    "model.depth",
    "model.width",
    "model.heads",
    "model.context",
    "model.dropout",
    "data.batch_size",
    "trainer.max_steps",
)


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing straight into the run's folder."""

    def __init__(self, folder: Path, config: LoggerConfig) -> None:
        super().__init__(
            save_dir=str(folder),
            name="",
            version="",
            default_hp_metric=False,
            flush_secs=config.flush_seconds,
        )
        self.settings = config

    @property
    def experiment(self) -> Any:
        """The writer; its file comes after those that are there, whatever the clock says."""
        if self._experiment is None:
            with _clock_after(_newest_stamp(Path(self.save_dir or "."))):
                return super().experiment
        return self._experiment

    def save(self) -> None:
        """Nothing: the run's `config.yaml` is the one place for its configuration."""

    def finalize(self, status: str) -> None:
        """Flush only; a writer closed here would open a second file for the final numbers."""
        self.experiment.flush()

    def write_scalar(self, tag: str, value: float, step: int) -> None:
        """Write a point of a curve."""
        self.experiment.add_scalar(tag, value, step)

    def write_probes(self, readings: Mapping[tuple[str, str], float], step: int) -> None:
        """Write measurements by (quantity, site), all in one record."""
        values = [
            Summary.Value(tag=tags.probe_tag(*key), simple_value=value)
            for key, value in readings.items()
        ]
        self.experiment.file_writer.add_summary(Summary(value=values), step)

    def write_histogram(self, quantity: str, site: str, values: Tensor, step: int) -> None:
        """Write how values are distributed, where all are finite: nothing else can be drawn."""
        if values.isfinite().all():
            # TensorBoard's own bins grow by a tenth: gains near one would all be in two of them.
            low, high = float(values.min()), float(values.max())
            margin = 0.0 if low < high else 1e-3 * max(1.0, abs(low))
            edges = np.linspace(low - margin, high + margin, _BINS + 1)
            tag = tags.probe_tag(quantity, site)
            self.experiment.add_histogram(tag, values.float().cpu(), step, bins=edges)

    def file_sizes(self) -> dict[str, int]:
        """Bytes of each event file of the run, written to the disk: all that was logged so far."""
        self.experiment.flush()
        files = sorted(Path(self.save_dir or ".").glob(EVENT_FILES))
        # Before the state that counts on these bytes: after a crash of the machine they may be
        # missing, and `rewind_events` would refuse the state.
        for path in files:
            sync_to_disk(path)
        return {path.name: path.stat().st_size for path in files}

    def write_start(self, record: RunRecord) -> None:
        """Write what is certain before the first step."""
        # Lightning's own way also writes a NaN at step 0, which the page of scalars would draw.
        columns = dict.fromkeys((tags.FINAL_VALIDATION_LOSS, tags.FINAL_TRAIN_LOSS), math.nan)
        for part in hparams(_hyperparameters(record), columns):  # type: ignore[no-untyped-call]
            self.experiment.file_writer.add_summary(part)
        # Without a backtick, which the archive's reader takes for the end, it is the same JSON.
        text = json.dumps(asdict(record), indent=1).replace("`", r"\u0060")
        # add_text adds the suffix to every tag.
        self.experiment.add_text(tags.RECORD.removesuffix("/text_summary"), _fence("json", text))
        if self.settings.layout:
            probes = _PROBES_LAYOUT if "probes" in record.config else {}
            self.experiment.add_custom_scalars({**_LAYOUT, **probes})
        if self.settings.card:
            self.experiment.add_text("card", _card(record))

    def write_end(self, record: RunRecord) -> None:
        """Write the final numbers, so that the HParams page can sort by them."""
        for tag, value in (
            (tags.FINAL_VALIDATION_LOSS, record.final.val_loss),
            (tags.FINAL_TRAIN_LOSS, record.final.train_loss),
            (tags.FINAL_SELECTION_LOSS, record.final.selection_loss),
            (tags.FINAL_TEST_LOSS, record.final.test_loss),
        ):
            self.write_scalar(tag, math.nan if value is None else value, record.step)


def _newest_stamp(folder: Path) -> int:
    """The time in the name of the newest event file, `…tfevents.<seconds>.…`; 0 without one."""
    stamps = [
        re.match(r"events\.out\.tfevents\.(\d{1,12})\.", path.name, re.ASCII)
        for path in folder.glob(EVENT_FILES)
    ]
    return max((int(stamp[1]) for stamp in stamps if stamp), default=0)


@contextmanager
def _clock_after(moment: int) -> Iterator[None]:
    """Have TensorBoard name an event file after `moment`, wherever the clock has gone back.

    It names files by the clock and reads them in the order of names. Nothing public sets the name:
    `filename_suffix` comes after the time, and a file renamed while it is open is opened anew under
    its old name by the next write. So the writer's clock is replaced while it opens the file.
    """
    event_file_writer.time = SimpleNamespace(time=lambda: max(time.time(), moment + 1))
    try:
        yield
    finally:
        event_file_writer.time = time


def rewind_events(folder: Path, sizes: Mapping[str, int]) -> None:
    """Take back whatever was logged after `sizes` was taken, so that no step is there twice.

    Raises:
        NormlabError: an event file is missing or shorter; nothing has been changed.
    """
    files = {path.name: path for path in folder.glob(EVENT_FILES)}
    for name, size in sizes.items():
        if name not in files or files[name].stat().st_size < size:
            raise NormlabError(f"{folder / EVENT_FILES} do not hold what was logged")
    for name, path in files.items():
        if name not in sizes:
            path.unlink()
        elif path.stat().st_size > sizes[name]:
            # Not cut in place: a copy of the run that was made by linking has the same file.
            content = read_bytes(path, LARGEST_EVENT_FILE)[: sizes[name]]
            with replace_atomically(path) as draft:
                draft.write_bytes(content)


def _hyperparameters(record: RunRecord) -> dict[str, Any]:
    # The page sorts columns by name and shows the first five: these, so the rest is a "setting".
    columns = {
        "data": record.data,
        "lr": record.config["optimizer"]["lr"],
        "norm": record.norm,
        "placement": record.placement,
        "seed": str(record.seed),  # a choice, not 0.0000
    }
    groups = {f"setting.{group}": choice for group, choice in record.choices.items()}
    numbers: dict[str, Any] = {}
    for key in _SETTINGS:
        group, name = key.split(".")
        numbers[f"setting.{key}"] = record.config[group][name]
    return {**columns, **groups, **numbers}


def _card(record: RunRecord) -> str:
    floor = "unknown" if record.floor is None else f"{record.floor:.4f} nats per token"
    norm, placement, data = map(_literal, (record.norm, record.placement, record.data))
    lines = [
        f"# {_literal(record.name)}",
        "",
        f"norm **{norm}**, placement **{placement}**, data **{data}**, seed **{record.seed}**",
        "",
        f"{record.parameters:,} parameters; floor {floor}; {record.device}, {record.precision}",
        "",
        _fence("yaml", yaml.safe_dump(record.config, sort_keys=False)),
    ]
    return "\n".join(lines)


def _literal(text: str) -> str:
    """Markdown and HTML that show these characters and mean nothing else."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|-])", r"\\\1", html.escape(printable(one_line(text))))


def _fence(language: str, text: str) -> str:
    """A block of code, in a fence longer than any that the text holds."""
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{fence}{language}\n{text}\n{fence}"
