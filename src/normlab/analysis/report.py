"""`report.html`: a study as one page that needs nothing else, neither network nor other files.

Whatever comes from a folder of results is text there. Only drawings that our own matplotlib has
just made, and the style and script beside the templates, stand in a page as they are; and the page
itself forbids its browser everything else.
"""

import re
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from normlab.analysis import report_tables
from normlab.analysis.result import StudyResult
from normlab.archive.files import write_text
from normlab.archive.record import short_commit
from normlab.archive.study import Study
from normlab.text import printable

TEMPLATES = Path(__file__).parent / "templates"

# A browser would end a line after the hyphen in 1e-3.
_POWER = re.compile(r"\d(?:\.\d+)?e-\d+")


def write_page(template: str, content: Mapping[str, Any], path: Path) -> None:
    """Fill a template and write the page, whole or not at all; the same bytes for the same content.

    Raises:
        OSError: it cannot be written.
    """
    style, script = (
        Markup((TEMPLATES / name).read_text(encoding="utf-8"))
        for name in ("report.css", "report.js")
    )
    # By its digest the page lets this script run and no other.
    digest = b64encode(sha256(script.encode()).digest()).decode()
    around = {"style": style, "script": script, "script_digest": digest}
    page = _template_environment().get_template(template).render({**content, **around})
    write_text(path, page)


def typed_command(command: str) -> str:
    """What to type for a command as a run's record has it."""
    program = command.split(maxsplit=1)[0]
    return f"python {command}" if program.endswith(".py") else command


@cache
def _template_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable_value,  # every value that a template prints passes through it
    )
    environment.filters["keep_powers"] = _keep_powers
    return environment


def _printable_value(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _keep_powers(text: str) -> Markup:
    """The text, with numbers that stay on one line."""
    safe = str(escape(_printable_value(text)))  # of Markup, sub would escape what it puts in
    return Markup(_POWER.sub(r'<span class="power">\g<0></span>', safe))


# Characters. A browser lays out this much of a drawing at once; beyond it, pixels are quicker.
_LARGEST_DRAWING = 700_000
_LARGEST_SUM = 2_000_000
_COLOURS = 128  # of a picture in pixels

# Of the figures that a report can hold, apart from those of single scalars.
CAPTIONS = {
    "comparison": "Training loss, validation loss and final validation losses under one legend.",
    "training_loss": "Training loss over optimizer steps.",
    "validation_loss": "Validation loss over optimizer steps.",
    "final_validation_loss": "Final validation loss of every arm, with its seeds.",
    "learning_rate": "Final validation loss against the learning rate.",
    "gradient_vanishing": "Signal, information and gradient by depth; lines are theory.",
    "layernorm_vs_rmsnorm": "What each norm does to tokens, its invariances, its time.",
    "norm_comparison": "The four configurations at one learning rate and each at its own best.",
    "prenorm_vs_postnorm": "Norm before or after: final loss by depth, learning rate and warm-up.",
    "precision": "Error of norms by format, scale and mean of the input, and eps.",
    "block": "A block without each of its parts: final loss, and gradient by depth.",
    "probes": "Inside the model, depth by step.",
    "probes_sublayers": "Inside and after the sublayers, depth by step.",
    "probes_norms": "The norms' own parameters, depth by step.",
}

_FILE_ONLY = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.S)
# matplotlib's style is one of `*`, and would hold for the whole page; report.css has it instead.
_STYLE = re.compile(r"<style.*?</style>", re.S)
_OPENING = re.compile(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>')
_ID = re.compile(r'\bid="([^"]*)"')
_REFERENCE = re.compile(r'(?:xlink:)?href="#([^"]*)"|url\(#([^)]*)\)')
_PATH = re.compile(r'(?<= d=")[^"]*')
_INLINE_STYLE = re.compile(r'(?<= style=")[^"]*')
_COLOUR = re.compile(r"#([0-9a-f]{6})\b")
# The colours for which the page's style has others on a dark ground.
_ON_DARK = frozenset(
    re.findall(r"--on-([0-9a-f]{6}):", (TEMPLATES / "report.css").read_text(encoding="utf-8"))
)
_DIGITS = re.compile(r"(\.\d\d)\d+")


@dataclass(frozen=True)
class InlineFigure:
    """A figure, as `image` to put into a page.

    Attributes:
        is_vector: whether it is the drawing itself, unless that is too large.
        has_tooltips: whether it says what is drawn where one points at it.
    """

    name: str
    caption: str
    image: Markup
    is_vector: bool
    has_tooltips: bool


def inline_figures(files: Sequence[Path]) -> list[InlineFigure]:
    """The figures among the files that our own matplotlib has just written, in their order.

    Raises:
        OSError: a file cannot be read.
    """
    inlined, total = [], 0
    for path in files:
        if path.suffix != ".svg":
            continue
        name, caption = path.stem, figure_caption(path.stem)
        drawing = _inline_svg(path.read_text(encoding="utf-8"), name, caption)
        is_vector = len(drawing) <= _LARGEST_DRAWING and total + len(drawing) <= _LARGEST_SUM
        if is_vector:
            total += len(drawing)
        image = drawing if is_vector else _inline_png(path.with_suffix(".png"), caption)
        inlined.append(InlineFigure(name, caption, image, is_vector, "<title>" in image))
    return inlined


def figure_caption(name: str) -> str:
    """What the figure of this name shows."""
    return CAPTIONS.get(name) or name.replace("_", " ").capitalize() + "."


def _inline_svg(svg: str, name: str, caption: str) -> Markup:
    """The drawing with ids of its own, for a page holds many; hundredths of a point are enough."""
    svg = _STYLE.sub("", _FILE_ONLY.sub("", svg))
    label = Markup('role="img" aria-label="{}"').format(caption)
    svg = _OPENING.sub(lambda match: f"<svg {match[1]} {label}>", svg, count=1)
    svg = _ID.sub(lambda match: f'id="{name}-{match[1]}"', svg)
    svg = _REFERENCE.sub(
        lambda match: f'href="#{name}-{match[1]}"' if match[1] else f"url(#{name}-{match[2]})", svg
    )
    svg = _PATH.sub(lambda match: _DIGITS.sub(r"\1", match[0]).replace("\n", ""), svg)
    svg = _INLINE_STYLE.sub(lambda match: _COLOUR.sub(_colour_variable, match[0]), svg)
    return Markup(re.sub(r"\s*\n\s*", "\n", svg).strip())


def _colour_variable(colour: re.Match[str]) -> str:
    """A colour as a variable of the page's style, which has another value on a dark ground."""
    return f"var(--on-{colour[1]}, {colour[0]})" if colour[1] in _ON_DARK else colour[0]


def _inline_png(png: Path, caption: str) -> Markup:
    """The picture in fewer colours, a third of its size."""
    with Image.open(png) as picture:
        few = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    packed = BytesIO()
    few.save(packed, "PNG")
    data = b64encode(packed.getvalue()).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, caption)


_RUN_STATES = ("finished", "diverged", "failed", "interrupted", "running")


def write_report(
    result: StudyResult, figures: Sequence[Path], notes: Sequence[str], path: Path
) -> None:
    """Write the study's page, whole or not at all; the same bytes for the same study.

    `figures` are the files that were just drawn, `notes` sentences about what could not be read or
    was not drawn.

    Raises:
        OSError: a figure cannot be read, or the page not be written.
    """
    study, experiment = result.study, result.experiment
    states = [run.record.state for run in study.runs]
    circumstances = report_tables.circumstance_differences(study.runs)
    content = {
        "name": result.plan.study,
        "period": report_tables.study_period(study),
        "states": {state: states.count(state) for state in _RUN_STATES if state in states},
        # The experiment's own first, the others in their order: the sort is stable.
        "figures": sorted(
            inline_figures(figures),
            key=lambda figure: not experiment or figure.name != experiment.name,
        ),
        "readings": report_tables.figure_tables(result),
        "runs": report_tables.runs_table(result),
        "diverged": report_tables.diverged_table(result),
        "unfinished": report_tables.unfinished_table(study),
        "configuration": report_tables.configuration_differences(study.runs),
        "circumstances": circumstances,
        "made_with": _origin_facts(dict(circumstances.fixed)),
        "commands": repeat_commands(study),
        # The page goes to other machines: it does not name the study's folder.
        "notes": tuple(note.replace(f"{study.folder}/", "") for note in notes),
        "sentences": [*result.story, *result.sentences],
        "warnings": result.warnings,
        "arms": report_tables.arms_table(result),
        "comparisons": report_tables.comparisons_table(result),
        "convergence": report_tables.convergence_table(result),
        "floors": sorted({arm.floor for arm in result.summaries if arm.floor is not None}),
    }
    write_page("study.html", content, path)


def _origin_facts(fixed: Mapping[str, str]) -> list[str]:
    """What all runs were made with, in short: device, precision, torch, normlab and its commit."""
    commit = fixed.get(report_tables.COMMIT, "")
    words = {
        "device": "",
        "precision": "",
        "version torch": "torch ",
        "version normlab": "normlab ",
    }
    facts = [f"{before}{fixed[key]}" for key, before in words.items() if key in fixed]
    return [*facts, *([f"commit {short_commit(commit)}"] if commit else [])]


def repeat_commands(study: Study) -> dict[str, list[str]]:
    """What to type, from the root of the repository, by what it does."""
    # As the runs were trained: where the study lies now is not named, as in the notes.
    output_dirs = [run.record.config.get("output_dir") for run in study.runs]
    above = next((parent for parent in output_dirs if isinstance(parent, str)), "outputs")
    folder = f"{above.rstrip('/')}/{study.name}"
    typed = dict.fromkeys(run.record.command for run in study.runs if run.record.command.strip())
    return {
        "The study": [typed_command(command) for command in typed],
        "Draw it again": [f"python scripts/plot.py {shlex.quote(folder)}"],
        "Browse every curve": [f"tensorboard --logdir {shlex.quote(above)}"],
        "One run again, to compare it bit by bit": [
            f"python train.py --from {shlex.quote(f'{folder}/{run.folder.name}')}"
            for run in study.runs
        ],
    }
