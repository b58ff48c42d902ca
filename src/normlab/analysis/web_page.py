"""Pages that need nothing else, neither network nor other files.

Whatever comes from a folder of results is text there. Only drawings that our own matplotlib has
just made, and the style and script beside the templates, stand in a page as they are; and the page
itself forbids its browser everything else.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from normlab.archive.files import write_text
from normlab.text import printable

TEMPLATES = Path(__file__).parent / "templates"

# A browser would end a line after the hyphen in 1e-3.
_POWER = re.compile(r"\d(?:\.\d+)?e-\d+")


def write(template: str, content: Mapping[str, Any], path: Path) -> None:
    """Fill a template and write the page, whole or not at all; the same bytes for the same content.

    Raises:
        OSError: it cannot be written.
    """
    style, script = (
        Markup((TEMPLATES / name).read_text(encoding="utf-8"))
        for name in ("report.css", "report.js")
    )
    around = {"style": style, "script": script, "script_digest": _digest(script)}
    page = _environment().get_template(template).render({**content, **around})
    write_text(path, page)


def typed(command: str) -> str:
    """What to type for a command as a run's record has it."""
    program = command.split(maxsplit=1)[0]
    return f"python {command}" if program.endswith(".py") else command


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    environment.filters["whole"] = _whole
    return environment


def _printable(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _whole(text: str) -> Markup:
    """The text, with numbers that stay on one line."""
    safe = str(escape(_printable(text)))  # of Markup, sub would escape what it puts in
    return Markup(_POWER.sub(r'<span class="power">\g<0></span>', safe))


def _digest(script: str) -> str:
    """The digest of the script's text, by which the page lets this script run and no other."""
    return b64encode(sha256(script.encode()).digest()).decode()
