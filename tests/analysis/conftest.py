"""Studies made without training: real event files, records through RunRecord."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from normlab.archive import tags
from normlab.archive.record import BestNumbers, FinalNumbers, RunRecord

FLOOR = 1.43


class StudyMaker:
    """Writes run folders with noisy, decaying losses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self,
        norm: str = "rmsnorm",
        placement: str = "pre",
        seed: int = 0,
        *,
        level: float = 1.5,
        steps: int = 500,
        diverge_at: int | None = None,
        config: dict[str, Any] | None = None,
        **record: Any,
    ) -> RunRecord:
        """One run that decays to `level`, or whose loss grows from half of `diverge_at` on."""
        config = {"seed": seed, "norm": {"eps": 1e-5}, **(config or {})}
        extra = "-".join(f"{key}{value}" for key, value in record.get("choices", {}).items())
        lr = config.get("optimizer", {}).get("lr", "")
        written = RunRecord(
            id=f"{norm}{placement}{seed}",
            name=record.pop("name", f"{norm}-{placement}-{lr}{extra}-s{seed}"),
            norm=norm,
            placement=placement,
            data="synthetic",
            seed=seed,
            choices=record.pop("choices", {"norm": norm, "placement": placement}),
            config=config,
            state=record.pop("state", "diverged" if diverge_at else "finished"),
            step=diverge_at or steps,
            diverged_step=diverge_at,
            floor=record.pop("floor", FLOOR),
            parameters=record.pop("parameters", 801_234),
            tokens_per_second=record.pop("tokens_per_second", 45_000.0 + 1000 * seed),
            command="train.py -m norm=rmsnorm,layernorm placement=pre,post",
            **record,
        )
        folder = self.folder / written.name
        self._events(folder, written, level, steps, diverge_at)
        written.write(folder)
        return written

    def _events(
        self, folder: Path, record: RunRecord, level: float, steps: int, diverge_at: int | None
    ) -> None:
        rng = np.random.default_rng([record.seed, len(record.name), int(level * 1e6)])
        shift = rng.normal(0, 0.008)
        writer = SummaryWriter(str(folder))
        best = BestNumbers()
        validation = train = math.nan
        for step in range(steps + 1):
            loss = level + shift + (3.2 - level) * math.exp(-step / 60)
            if diverge_at:
                loss += 0.02 * max(0, step - diverge_at / 2) ** 1.4
            if diverge_at and step >= diverge_at:
                writer.add_scalar(tags.TRAIN_LOSS, math.nan, step)
                break
            train = float(np.float32(loss + rng.normal(0, 0.05)))  # as an event holds it
            writer.add_scalar(tags.TRAIN_LOSS, train, step)
            if step % 50 == 0:
                validation = float(np.float32(loss + rng.normal(0, 0.004)))
                writer.add_scalar(tags.VALIDATION_LOSS, validation, step)
                if best.val_loss is None or validation < best.val_loss:
                    best = BestNumbers(validation, step)
        writer.close()
        record.best = best
        if not diverge_at:
            record.final = FinalNumbers(validation, train)


@pytest.fixture
def maker(tmp_path: Path) -> StudyMaker:
    return StudyMaker(tmp_path / "study")


@pytest.fixture(scope="session")
def make_study() -> type[StudyMaker]:
    """For studies that several tests only read."""
    return StudyMaker
