"""What a claim rests on: the runs of its study that were asked for, or its measurement."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from normlab.apps.claims.verdicts import Measured
from normlab.archive import tags
from normlab.archive.events import Events
from normlab.archive.record import RunRecord
from normlab.archive.study import Run, read_study
from normlab.errors import NormlabError

_CURVES = (tags.TRAIN_LOSS, tags.VALIDATION_LOSS)


@dataclass(frozen=True)
class Evidence:
    """Runs, a measurement, or why there is neither.

    Attributes:
        runs: those that were asked for; one that is not there yet has the state `running`.
        measured: what was measured without training.
        problem: why there is nothing; empty where there is something.
        command: what trains or measures it again.
    """

    runs: tuple[Run, ...] = ()
    measured: Measured | None = None
    problem: str = ""
    command: str = ""


def read_runs(
    folder: Path, asked: Mapping[str, RunRecord], probes: bool = False
) -> tuple[Run, ...]:
    """The runs of a study that were asked for, by id; one that is not there as it was asked for.

    Of their scalars losses are read, with `probes` everything.
    """
    try:
        study = read_study(folder, None if probes else _CURVES)
    except NormlabError:  # no run has left anything that can be read
        there = {}
    else:
        there = {run.record.id: run for run in study.runs}
    return tuple(
        there.get(one, Run(folder / record.name, record, Events())) for one, record in asked.items()
    )
