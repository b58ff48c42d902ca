"""Whether a study's figures and report are there already: of the same data, by the same code.

Drawing is most of what a redraw costs. A note beside the cache of the events says what the figures
were drawn from and what came of it; where any of that differs, they are drawn.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import normlab
from normlab.archive import tags
from normlab.archive.cache import CACHE_FOLDER
from normlab.archive.durable import write_text
from normlab.archive.folder import Study

# What figures and tables are made of.
CURVES = (tags.TRAIN_LOSS, tags.VALIDATION_LOSS, tags.TOKENS_PER_SECOND, tags.PROBES)

_NOTE = "figures.json"
_CODE = ("analysis", "archive")
_PACKAGES = ("matplotlib", "numpy", "scipy", "Jinja2", "MarkupSafe", "pillow")


def found(study: Study) -> list[Path]:
    """The files that were made of the study, if they would be the same now; or nothing."""
    try:
        note = json.loads((study.folder / CACHE_FOLDER / _NOTE).read_text(encoding="utf-8"))
        files = [study.folder / name for name in note["files"]]
        if note["drawn_from"] == _digest(study) and note["files"] == _contents(study, files):
            return files
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return []


def remember(study: Study, files: Sequence[Path]) -> None:
    """Note what the files in the study's folder were made from, if it can be written."""
    with suppress(OSError):
        note = {"drawn_from": _digest(study), "files": _contents(study, files)}
        write_text(study.folder / CACHE_FOLDER / _NOTE, json.dumps(note))


def _contents(study: Study, files: Sequence[Path]) -> dict[str, str]:
    return {
        path.relative_to(study.folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _digest(study: Study) -> str:
    digest = sha256()
    for part in _drawn_from(study):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _drawn_from(study: Study) -> Iterator[bytes]:
    """Everything that the figures and the report depend on."""
    package = Path(normlab.__file__).parent
    for room in _CODE:
        yield from (path.read_bytes() for path in sorted((package / room).rglob("*.py")))
    templates = package / "analysis" / "templates"
    yield from (path.read_bytes() for path in sorted(templates.iterdir()))
    yield from (version(name).encode() for name in _PACKAGES)
    yield study.name.encode()
    yield json.dumps(study.left_out).encode()
    for run in study.runs:
        yield json.dumps([run.folder.name, asdict(run.record), run.whole]).encode()
        for tag, series in run.events.scalars.items():
            if tag in CURVES or tag.startswith(tags.PROBES):
                yield tag.encode()
                yield series.steps.tobytes() + series.values.tobytes()
