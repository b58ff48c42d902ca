"""`report.html`: a study as one page; see `normlab.analysis.web_page`."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from normlab.analysis import conclusion_tables, differences, inline, run_tables, web_page
from normlab.analysis.readings import readings
from normlab.analysis.result import StudyExperiment
from normlab.analysis.table import summary
from normlab.analysis.verdict import Verdict
from normlab.archive.study import Study

_STATES = ("finished", "diverged", "failed", "interrupted", "running")


def write(
    study: Study,
    found: Verdict,
    figures: Sequence[Path],
    notes: Sequence[str],
    path: Path,
    experiment: StudyExperiment | None = None,
) -> None:
    """Write the study's page, whole or not at all; the same bytes for the same study.

    `found` is the study's verdict, `figures` are the files that were just drawn, `notes` sentences
    about what could not be read or was not drawn.

    Raises:
        OSError: a figure cannot be read, or the page not be written.
    """
    content = {**_content(study, figures, notes, experiment), **_conclusion(study, found)}
    web_page.write("study.html", content, path)


def _content(
    study: Study,
    figures: Sequence[Path],
    notes: Sequence[str],
    experiment: StudyExperiment | None,
) -> dict[str, Any]:
    records = [run.record for run in study.runs]
    counts = {state: sum(one.state == state for one in records) for state in _STATES}
    circumstances = differences.circumstances(study.runs)
    return {
        "name": study.name,
        "period": run_tables.period(study),
        "states": {state: count for state, count in counts.items() if count},
        "figures": sorted(
            inline.figures(figures), key=lambda one: not experiment or one.name != experiment.name
        ),
        "readings": readings(study),
        "runs": run_tables.runs_table(study),
        "diverged": run_tables.diverged_table(study),
        "unfinished": run_tables.unfinished_table(study),
        "configuration": differences.configuration(study.runs),
        "circumstances": circumstances,
        "made_with": _made_with(dict(circumstances.fixed)),
        "commands": commands(study),
        "notes": tuple(_without_place(note, study) for note in notes),
    }


def _conclusion(study: Study, found: Verdict) -> dict[str, Any]:
    summaries = summary(study)
    return {
        "sentences": [*found.story, *found.sentences],
        "warnings": found.warnings,
        "arms": conclusion_tables.arms_table(study, summaries),
        "comparisons": conclusion_tables.comparisons_table(study, found.comparisons),
        "floors": sorted({one.floor for one in summaries if one.floor is not None}),
    }


def _without_place(note: str, study: Study) -> str:
    """The note, whichever way the study's folder was named: the page goes to other machines."""
    return note.replace(f"{study.folder}/", "")


def _made_with(fixed: Mapping[str, str]) -> list[str]:
    """What all runs were made with, in short: device, precision, torch, normlab and its commit."""
    commit = fixed.get(differences.COMMIT, "")
    words = {
        "device": "",
        "precision": "",
        "version torch": "torch ",
        "version normlab": "normlab ",
    }
    facts = [f"{before}{fixed[key]}" for key, before in words.items() if key in fixed]
    return [*facts, *([f"commit {commit[:9]}"] if commit else [])]


def commands(study: Study) -> dict[str, list[str]]:
    """What to type, from the folder that normlab stands in, by what it does."""
    places = [run.record.config.get("output_dir") for run in study.runs]
    above = next((place for place in places if isinstance(place, str)), "outputs")
    folder = f"{above.rstrip('/')}/{study.name}"
    typed = dict.fromkeys(run.record.command for run in study.runs if run.record.command)
    repeats = [f"{folder}/{run.folder.name}" for run in study.runs]
    return {
        "The study": [web_page.typed(command) for command in typed],
        "Draw it again": [f"python scripts/plot.py {shlex.quote(folder)}"],
        "Browse every curve": [f"tensorboard --logdir {shlex.quote(above)}"],
        "One run again, to compare it bit by bit": [
            f"python train.py --from {shlex.quote(run)}" for run in repeats
        ],
    }
