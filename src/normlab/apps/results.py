"""What the commands that measure share: the name of the results' folder, and the files in it."""

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.analysis.style import skip_failed_figure
from normlab.errors import NormlabError

if TYPE_CHECKING:
    from rich.console import Console

# File systems take 255 bytes of a name; a longer one was a traceback once.
_LONGEST_NAME = 80


def folder_name(names: Sequence[str], default: str) -> str:
    """The names as one that no path can leave, or the default where nothing of them remains.

    A long list is cut; a checksum distinguishes it from lists that begin like it.
    """
    name = "-".join(re.sub(r"[^\w.=+-]+", "_", name, flags=re.ASCII) for name in names)
    # `..` would be the folder above, and a first dot hides a folder.
    name = name.lstrip(".") or default
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{zlib.crc32(name.encode()):08x}"


def save_results(
    folder: Path, write_numbers: Callable[[], Path], draw_figure: Callable[[], Path]
) -> tuple[dict[str, Path], list[str]]:
    """The files by what they are, and a sentence where the figure could not be drawn.

    Raises:
        NormlabError: the folder cannot be written.
    """
    notes: list[str] = []
    try:
        # The numbers first: a figure that fails leaves them.
        files = {"numbers": write_numbers()}
        with skip_failed_figure("The figure", notes):
            files = {"figure": draw_figure(), **files}
    except OSError as error:
        # Where a folder lies in the place of a file, that is what the user has to move.
        path = error.filename if isinstance(error, IsADirectoryError) else folder
        raise NormlabError(
            f"{path} cannot be written ({error.strerror or error}); give another with --out DIR."
        ) from error
    return files, notes


def print_files(console: "Console", files: dict[str, Path], notes: Sequence[str]) -> None:
    """A line for each file, then the notes."""
    for name, path in files.items():
        console.print(f"{name:8} {path}", markup=False)
    for note in notes:
        console.print(f"note: {note}", markup=False)
