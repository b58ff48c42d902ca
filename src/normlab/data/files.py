"""The user's own text files: which ones a path means, and their text in chunks of bounded size."""

import codecs
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from normlab.errors import NormlabError

CHUNK_BYTES = 2**22
_EXPECTED = "give a file, a folder or a glob such as 'corpus/**/*.txt'"


def corpus_files(path: str) -> list[Path]:
    """The regular files that `path` (a file, a folder or a glob) means, sorted by name.

    Folders are searched to the bottom; hidden files and folders are left out.

    Raises:
        NormlabError: nothing is there, or a folder cannot be searched.
    """
    # Unlike Path's, this expanduser leaves the home of an unknown user alone.
    place = Path(os.path.expanduser(path))
    try:
        found = {file for file in _candidates(place) if file.is_file()}
        exists = place.exists()
    except OSError as error:
        raise NormlabError(
            f"data.path={path} cannot be searched ({error.strerror}: {error.filename}): "
            f"{_EXPECTED}."
        ) from error
    if not found:
        what = "holds no file to read" if exists else "matches no file"
        raise NormlabError(f"data.path={path} {what}: {_EXPECTED}.")
    return sorted(found, key=Path.as_posix)


def text_chunks(files: Sequence[Path]) -> Iterator[str]:
    """The text of `files`, one after the other, in chunks of at most CHUNK_BYTES.

    Raises:
        NormlabError: a file cannot be read or is not UTF-8 text; it names the file and the place.
    """
    for file in files:
        try:
            yield from _file_chunks(file)
        except OSError as error:
            raise NormlabError(
                f"{file} cannot be read ({error.strerror or error}): make it readable or leave "
                "it out of data.path."
            ) from error


def _candidates(place: Path) -> Iterator[Path]:
    if place.is_dir():
        return _below(place)
    if place.exists() or not glob.has_magic(str(place)):
        return iter([place])
    return map(Path, glob.iglob(str(place), recursive=True))


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise error


def _file_chunks(file: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with file.open("rb") as stream:
        while True:
            chunk = stream.read(CHUNK_BYTES)
            held_back = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                place = offset - held_back + error.start
                raise _not_text(file, "bytes that are not UTF-8", place) from error
            if (nul := chunk.find(b"\0")) >= 0:
                raise _not_text(file, "a NUL byte", offset + nul)
            if not chunk:
                return
            # The byte order mark that some editors put first is not text.
            if text := text.removeprefix("\ufeff") if offset == 0 else text:
                yield text
            offset += len(chunk)


def _not_text(file: Path, what: str, offset: int) -> NormlabError:
    return NormlabError(
        f"{file} is not text: it holds {what} at offset {offset}; convert it to UTF-8 or leave it "
        "out of data.path."
    )
