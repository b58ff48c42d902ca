"""The user's own text files: which ones a path means, and their text in chunks of bounded size."""

import codecs
import fnmatch
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from normlab.errors import NormlabError

CHUNK_BYTES = 2**22
_EXPECTED = "give a file, a folder or a glob such as 'corpus/**/*.txt'"

# Text whose names, quotes and brackets a model would learn along with what they hold.
_STRUCTURED = {
    ".json": "JSON",
    ".jsonl": "JSON lines",
    ".jsonlines": "JSON lines",
    ".ndjson": "JSON lines",
    ".json5": "JSON",
    ".geojson": "JSON",
    ".ipynb": "a notebook in JSON",
    ".csv": "a table (CSV)",
    ".tsv": "a table (TSV)",
    ".parquet": "a Parquet table",
    ".html": "HTML",
    ".htm": "HTML",
    ".xml": "XML",
}
# What other kinds of files begin with, and what makes text of them.
_UNPACK, _EXPORT, _CONVERT = "unpack it", "export its text", "convert it to UTF-8"
_SIGNATURES = (
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"BZh91AY&SY", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"PK\x03\x04", "a zip archive or an office document", f"{_UNPACK} or {_EXPORT}"),
    (b"%PDF-", "a PDF", _EXPORT),
    (b"{\\rtf", "rich text (RTF)", _EXPORT),
    (b"PAR1\x15", "a Parquet table", _EXPORT),
    (b"ARROW1\0", "an Arrow table", _EXPORT),
    (b"SQLite format 3\0", "an SQLite database", _EXPORT),
    (codecs.BOM_UTF32_LE, "UTF-32", _CONVERT),
    (codecs.BOM_UTF16_LE, "UTF-16", _CONVERT),
    (codecs.BOM_UTF16_BE, "UTF-16", _CONVERT),
)


def corpus_files(path: str) -> list[Path]:
    """The regular files that `path` (a file, a folder or a glob) means, sorted by name.

    Folders are searched to the bottom. Links are followed, and a file or a folder that several
    names lead to counts once. Hidden files and folders are left out.

    Raises:
        NormlabError: nothing is there, a folder cannot be searched, a link leads nowhere.
    """
    # Unlike Path's, this expanduser leaves the home of an unknown user alone.
    start = Path(os.path.expanduser(path))
    try:
        files = _without_duplicates(_candidates(start))
        exists = start.exists()
    except OSError as error:
        raise NormlabError(
            f"data.path={path} cannot be searched ({error.strerror}: {error.filename}): "
            f"{_EXPECTED}."
        ) from error
    if not files:
        what = "holds no file to read" if exists else "matches no file"
        raise NormlabError(f"data.path={path} {what}: {_EXPECTED}.")
    return files


def content_digest(files: Sequence[Path]) -> str:
    """SHA-256 over what `files` hold, in their order; about 1 GB/s. Names do not count.

    Raises:
        NormlabError: a file cannot be read, or is of a kind that is not plain text.
    """
    digest = hashlib.sha256()
    for file in files:
        own = hashlib.sha256()
        for chunk in _read(file):
            own.update(chunk)
        digest.update(own.digest())
    return digest.hexdigest()


def text_chunks(files: Sequence[Path]) -> Iterator[str]:
    """The text of `files`, one after the other, in chunks of at most CHUNK_BYTES.

    Raises:
        NormlabError: a file cannot be read or is not UTF-8 text; it names the file and the offset.
    """
    for file in files:
        yield from _decoded(file)


def _candidates(start: Path) -> Iterator[Path]:
    if start.is_dir():
        for folder in _folders(start):
            yield from (entry for entry in _visible(folder) if not entry.is_dir())
    elif start.exists() or not glob.has_magic(str(start)):
        yield start
    else:
        yield from _matching(Path(start.anchor), start.parts[bool(start.anchor) :])


def _matching(folder: Path, pattern: tuple[str, ...]) -> Iterator[Path]:
    """The entries below `folder` that a glob in parts means: as `glob` has it, but links may loop.

    The standard library's follows a link to a parent folder forty times over, and its `**` takes
    time that is exponential in the number of such links.
    """
    if not pattern:
        yield folder
        return
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        if rest[:1] != ("**",):
            for below in _folders(folder):
                yield from _matching(below, rest or ("*",))
        else:
            yield from _matching(folder, rest)
    elif not glob.has_magic(first):
        if (folder / first).exists():
            yield from _matching(folder / first, rest)
    elif folder.is_dir():
        for entry in _visible(folder, hidden=first.startswith(".")):
            if fnmatch.fnmatchcase(entry.name, first) and (not rest or entry.is_dir()):
                yield from _matching(entry, rest)


def _folders(start: Path) -> Iterator[Path]:
    """`start` and the folders below it, each once, however many links lead to it."""
    entered: set[Path] = set()
    waiting = [start] if start.is_dir() else []
    while waiting:
        folder = waiting.pop(0)
        if (real := folder.resolve()) in entered:
            continue
        entered.add(real)
        yield folder
        waiting += (entry for entry in _visible(folder) if entry.is_dir())


def _visible(folder: Path, *, hidden: bool = False) -> list[Path]:
    names = sorted(os.listdir(folder))
    return [folder / name for name in names if hidden or not name.startswith(".")]


def _without_duplicates(candidates: Iterator[Path]) -> list[Path]:
    by_content: dict[Path, Path] = {}
    for path in sorted(candidates, key=Path.as_posix):
        if path.is_symlink() and not path.exists():
            raise NormlabError(
                f"{path} is a link that leads nowhere: mend it, or take it out of data.path."
            )
        if path.is_file():
            by_content.setdefault(path.resolve(), path)
    return list(by_content.values())


def _read(file: Path) -> Iterator[bytes]:
    """The bytes of a file in chunks, once its name and its first bytes may be those of a text."""
    if kind := _STRUCTURED.get(file.suffix.lower()):
        raise NormlabError(
            f"{file} is {kind}, and its names and quotes would be learned with its text: write the "
            f"text alone into a .txt file, or rename this one to .txt to train on it as it is, or "
            f"leave it out of data.path."
        )
    try:
        with file.open("rb") as stream:
            chunk = stream.read(CHUNK_BYTES)
            for signature, kind, advice in _SIGNATURES:
                if chunk.startswith(signature):
                    raise NormlabError(
                        f"{file} is not plain text but {kind}: {advice}, or leave it out of "
                        f"data.path."
                    )
            offset = 0
            while chunk:
                if (nul := chunk.find(b"\0")) >= 0:
                    raise _not_text(file, "a NUL byte", offset + nul)
                yield chunk
                offset += len(chunk)
                chunk = stream.read(CHUNK_BYTES)
    except OSError as error:
        raise NormlabError(
            f"{file} cannot be read ({error.strerror or error}): make it readable or leave it out "
            "of data.path."
        ) from error


def _decoded(file: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    for chunk in _read(file):
        text = _decode(decoder, chunk, file, offset)
        # The byte order mark that some editors put first is not text.
        if text := text.removeprefix("\ufeff") if offset == 0 else text:
            yield text
        offset += len(chunk)
    _decode(decoder, b"", file, offset)


def _decode(decoder: codecs.IncrementalDecoder, chunk: bytes, file: Path, offset: int) -> str:
    held_back = len(decoder.getstate()[0])
    try:
        return decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        start = offset - held_back + error.start
        raise _not_text(file, "bytes that are not UTF-8", start) from error


def _not_text(file: Path, what: str, offset: int) -> NormlabError:
    return NormlabError(
        f"{file} is not text: it holds {what} at offset {offset}; convert it to UTF-8 or leave it "
        "out of data.path."
    )
