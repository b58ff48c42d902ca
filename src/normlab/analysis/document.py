"""`report.html`: a study as one page that needs nothing else, neither network nor other files.

Whatever comes from a run's folder is text there. Only drawings that our own matplotlib has just
made, and the style and script beside the template, stand in it as they are; and the page itself
forbids its browser everything else.
"""

import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from normlab.analysis import conclusion_tables, differences, inline, run_tables
from normlab.analysis.readings import readings
from normlab.analysis.stories import story
from normlab.analysis.table import summary
from normlab.analysis.verdict import Verdict
from normlab.archive.durable import write_text
from normlab.archive.folder import Study

TEMPLATES = Path(__file__).parent / "templates"

# What HTML cannot hold, and Unicode's own replacement for it.
_CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)], "\ufffd")
_STATES = ("finished", "diverged", "failed", "interrupted", "running")


def write(
    study: Study, found: Verdict, figures: Sequence[Path], notes: Sequence[str], path: Path
) -> None:
    """Write the study's page, whole or not at all; the same bytes for the same study.

    `found` is the study's verdict, `figures` are the files that were just drawn, `notes` sentences
    about what could not be read or was not drawn.

    Raises:
        OSError: a figure cannot be read, or the page not be written.
    """
    content = {**_content(study, figures, notes), **_conclusion(study, found)}
    page = _environment().get_template("report.html").render(content)
    write_text(path, page.encode(errors="replace").decode())


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return value.translate(_CONTROLS)
    return value


def _content(study: Study, figures: Sequence[Path], notes: Sequence[str]) -> dict[str, Any]:
    records = [run.record for run in study.runs]
    counts = {state: sum(one.state == state for one in records) for state in _STATES}
    told = story(study)
    circumstances = differences.circumstances(study.runs)
    style, script = (
        Markup((TEMPLATES / name).read_text(encoding="utf-8"))
        for name in ("report.css", "report.js")
    )
    return {
        "name": study.name,
        "period": run_tables.period(study),
        "states": {state: count for state, count in counts.items() if count},
        "figures": sorted(
            inline.figures(figures), key=lambda one: not told or one.name != told.name
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
        "style": style,
        "script": script,
        "script_digest": _digest(script),
    }


def _conclusion(study: Study, found: Verdict) -> dict[str, Any]:
    summaries = summary(study)
    return {
        "sentences": found.sentences,
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
        "The study": [_typed(command) for command in typed],
        "Draw it again": [f"python scripts/plot.py {shlex.quote(folder)}"],
        "Browse every curve": [f"tensorboard --logdir {shlex.quote(above)}"],
        "One run again, to compare it bit by bit": [
            f"python train.py --from {shlex.quote(run)}" for run in repeats
        ],
    }


def _typed(command: str) -> str:
    program = command.split(maxsplit=1)[0]
    return f"python {command}" if program.endswith(".py") else command


def _digest(script: str) -> str:
    """The digest of the script's text, by which the page lets this script run and no other."""
    return b64encode(sha256(script.encode()).digest()).decode()
