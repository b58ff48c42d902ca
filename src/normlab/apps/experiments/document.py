"""`report.html` of an experiment that trains nothing; see `normlab.analysis.web_page`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normlab.analysis import inline, web_page
from normlab.analysis.arms import flatten, format_value
from normlab.apps.experiments.record import Measured, Origin, path_of
from normlab.apps.experiments.tables import tables

_MOST_VALUES = 12


def write(
    found: Measured, sentences: Sequence[str], figures: Sequence[Path], folder: Path, path: Path
) -> None:
    """Write the page, whole or not at all; `figures` are the files that were just drawn.

    Raises:
        OSError: a figure cannot be read, or the page not be written.
    """
    origin = found.origin
    content = {
        "name": folder.name,
        "period": origin.started[:10],
        "made_with": _made_with(origin),
        "sentences": list(sentences),
        "figures": inline.figures(figures),
        "readings": {found.name: tables(found)},
        "settings": [(key, _said(value)) for key, value in flatten(found.settings).items()],
        "origin": _origin(origin),
        "command": web_page.typed(origin.command),
        "redraw": f"python scripts/plot.py {shlex.quote(_place(origin, folder))}",
        "numbers": path_of(folder, found.name).name,
    }
    web_page.write("measured.html", content, path)


def _said(value: Any) -> str:
    """A value; of many, as seeds are, the first and the last."""
    if isinstance(value, list) and len(value) > _MOST_VALUES:
        return f"{format_value(value[0])} … {format_value(value[-1])} ({len(value)} values)"
    return format_value(value)


def _place(origin: Origin, folder: Path) -> str:
    """Where the command put it: the page says the same wherever the folder has gone since."""
    given = [word.partition("=") for word in shlex.split(origin.command)]
    above = [value for key, _, value in given if key == "output_dir"]
    return f"{(above or ['outputs'])[-1].rstrip('/')}/{folder.name}"


def _made_with(origin: Origin) -> list[str]:
    commit = (origin.git or {}).get("commit")
    known = [origin.machine.get("cpu"), *_versions(origin, "torch", "normlab")]
    return [str(one) for one in [*known, f"commit {commit[:9]}" if commit else None] if one]


def _versions(origin: Origin, *names: str) -> list[str]:
    return [f"{name} {origin.versions[name]}" for name in names if name in origin.versions]


def _origin(origin: Origin) -> list[tuple[str, str]]:
    own = {"started": origin.started, "seconds": origin.seconds}
    versions = {f"version {name}": one for name, one in origin.versions.items()}
    git = {f"normlab {key}": one for key, one in (origin.git or {}).items()}
    everything = {**own, **origin.machine, **versions, **git}
    return [(key, format_value(value)) for key, value in everything.items()]
