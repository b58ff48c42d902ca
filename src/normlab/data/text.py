"""A text of the user's own: any UTF-8 files, by characters or by byte pairs.

`find_corpus_files` says which files a path means, `read_text_chunks` what they hold, and
`open_corpus` keeps their token ids in the user's cache under a digest of that content, from where
they are memory-mapped: a corpus may be larger than memory.
"""

import codecs
import fnmatch
import glob
import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from normlab.archive.files import replace_atomically, suggest_closest_path, write_text
from normlab.data.sources import Corpus, CorpusSource, Ids, corpus_digest
from normlab.data.tokenizers import BytePairTokenizer, CharacterTokenizer, tokenizer_from_json
from normlab.errors import ConfigError, NormlabError

CHUNK_BYTES = 2**22
_EXPECTED = "give a file, a folder or a glob such as 'corpus/**/*.txt'"
_CACHE_VERSION = 2
# No other type: an array of Python's objects would follow the file's bytes as addresses.
_ID_TYPES = ("<u2", "<u4")
_log = logging.getLogger(__name__)

# Text whose names, quotes and brackets a model would learn along with what they hold.
_STRUCTURED_FORMATS = {
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
    ".toml": "TOML",
    ".yml": "YAML",
    ".yaml": "YAML",
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
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "UTF-32", _CONVERT),
    (codecs.BOM_UTF16_LE, "UTF-16", _CONVERT),
    (codecs.BOM_UTF16_BE, "UTF-16", _CONVERT),
)


def open_text(
    context: int,
    batch_size: int = 12,
    path: str | None = None,
    tokens: str = "characters",
    vocabulary: int = 1024,
    validation_fraction: float = 0.1,
    validation_windows: int | None = 1024,
) -> CorpusSource:
    """The files that `path` (a file, a folder or a glob) means, in windows of `context` tokens.

    Raises:
        ConfigError: no path, too little text for `context`, one symbol only.
        NormlabError: a file that is missing or no plain UTF-8 text, a cache that cannot be written.
    """
    if not path:
        raise ConfigError("data=text needs data.path=…: give a file, a folder or a glob.")
    return CorpusSource(
        open_corpus(find_corpus_files(path), tokens, vocabulary),
        f"data.path={path}",
        context=context,
        batch_size=batch_size,
        validation_fraction=validation_fraction,
        validation_windows=validation_windows,
    )


# --- Which files --------------------------------------------------------------------------------


def find_corpus_files(path: str) -> list[Path]:
    """The regular files that `path` (a file, a folder or a glob) means, sorted by name.

    Folders are searched to the bottom. Links are followed, and a file or a folder that several
    names lead to counts once. Hidden files and folders are left out.

    Raises:
        NormlabError: no file is found, a folder cannot be searched, a link is broken.
    """
    # Unlike Path's, this expanduser leaves the home of an unknown user alone.
    start = Path(os.path.expanduser(path))
    names: dict[Path, Path] = {}  # by the file that they lead to
    try:
        for file in sorted(_iterate_candidates(start), key=Path.as_posix):
            if file.is_symlink() and not file.exists():
                raise NormlabError(
                    f"{file} is a broken link: repair it, or take it out of data.path."
                )
            if file.is_file():
                names.setdefault(file.resolve(), file)
        exists = start.exists()
    except OSError as error:
        raise NormlabError(
            f"data.path={path} cannot be searched ({error.strerror}: {error.filename}): "
            f"{_EXPECTED}."
        ) from error
    if not names:
        what = "holds no file to read" if exists else "matches no file"
        hint = "" if exists or glob.has_magic(path) else suggest_closest_path(start)
        raise NormlabError(f"data.path={path} {what}: {hint}{_EXPECTED}.")
    return list(names.values())


def _iterate_candidates(start: Path) -> Iterator[Path]:
    if start.is_dir():
        for folder in _walk_folders(start):
            yield from (entry for entry in _list_folder(folder) if not entry.is_dir())
    elif start.exists() or not glob.has_magic(str(start)):
        yield start
    else:
        yield from _match_glob(Path(start.anchor), start.parts[bool(start.anchor) :])


def _match_glob(folder: Path, pattern: tuple[str, ...]) -> Iterator[Path]:
    """The entries below `folder` that a glob in parts means: as `glob` has it, but links may loop.

    The standard library's follows a link to a parent folder forty times over, and its `**` takes
    time that is exponential in the number of such links.
    """
    if not pattern:
        yield folder
        return
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        if rest[:1] == ("**",):
            yield from _match_glob(folder, rest)
        else:
            for below in _walk_folders(folder):
                yield from _match_glob(below, rest or ("*",))
    elif not glob.has_magic(first):
        if (folder / first).exists():
            yield from _match_glob(folder / first, rest)
    elif folder.is_dir():
        for entry in _list_folder(folder, hidden=first.startswith(".")):
            if fnmatch.fnmatchcase(entry.name, first) and (not rest or entry.is_dir()):
                yield from _match_glob(entry, rest)


def _walk_folders(start: Path) -> Iterator[Path]:
    """`start` and the folders below it, each once, however many links lead to it."""
    entered: set[Path] = set()
    pending = [start] if start.is_dir() else []
    while pending:
        folder = pending.pop(0)
        if (real := folder.resolve()) in entered:
            continue
        entered.add(real)
        yield folder
        pending += (entry for entry in _list_folder(folder) if entry.is_dir())


def _list_folder(folder: Path, *, hidden: bool = False) -> list[Path]:
    names = sorted(os.listdir(folder))
    return [folder / name for name in names if hidden or not name.startswith(".")]


# --- Their content ------------------------------------------------------------------------------


def content_digest(files: Sequence[Path]) -> str:
    """SHA-256 over the content of `files`, in their order; about 1 GB/s. Names do not count.

    Raises:
        NormlabError: a file cannot be read, or is of a kind that is not plain text.
    """
    digest = hashlib.sha256()
    for file in files:
        file_digest = hashlib.sha256()
        for chunk in _read_chunks(file):
            file_digest.update(chunk)
        digest.update(file_digest.digest())
    return digest.hexdigest()


def read_text_chunks(files: Sequence[Path]) -> Iterator[str]:
    """The text of `files`, one after the other, in chunks of at most CHUNK_BYTES.

    Raises:
        NormlabError: a file cannot be read or is not UTF-8 text; it names the file and the offset.
    """
    for file in files:
        decoder = codecs.getincrementaldecoder("utf-8")()
        offset = 0
        for chunk in _read_chunks(file):
            text = _decode_chunk(decoder, chunk, file, offset)
            # The byte order mark that some editors put first is not text.
            if text := text.removeprefix("\ufeff") if offset == 0 else text:
                yield text
            offset += len(chunk)
        # The file may end in the middle of a character.
        _decode_chunk(decoder, b"", file, offset)


def _structured_text_error(file: Path, kind: str) -> NormlabError:
    return NormlabError(
        f"{file} is {kind}, and its names and quotes would be learned with its text: write the "
        f"text alone into a .txt file, or rename this one to .txt to train on it as it is, or "
        f"leave it out of data.path."
    )


def _looks_like_json_lines(start: bytes) -> bool:
    """Whether the first complete lines of a file, up to three, are JSON objects."""
    # Without the last piece: the chunk may have cut it.
    lines = [line for line in start.split(b"\n", 20)[:-1] if line.strip()][:3]
    try:
        return bool(lines) and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False


def _read_chunks(file: Path) -> Iterator[bytes]:
    """The bytes of a file, if its name and its first bytes may be those of a plain text."""
    if kind := _STRUCTURED_FORMATS.get(file.suffix.lower()):
        raise _structured_text_error(file, kind)
    try:
        with file.open("rb") as stream:
            chunk = stream.read(CHUNK_BYTES)
            # Whoever has renamed a file to .txt, as the error advises, wants it as it is.
            if file.suffix.lower() != ".txt" and _looks_like_json_lines(chunk):
                raise _structured_text_error(file, "JSON lines")
            for signature, kind, advice in _SIGNATURES:
                if chunk.startswith(signature):
                    raise NormlabError(
                        f"{file} is not plain text but {kind}: {advice}, or leave it out of "
                        f"data.path."
                    )
            offset = 0
            while chunk:
                # A NUL is valid UTF-8, so that the decoder would not refuse it.
                if (nul := chunk.find(b"\0")) >= 0:
                    raise _not_text_error(file, "a NUL byte", offset + nul)
                yield chunk
                offset += len(chunk)
                chunk = stream.read(CHUNK_BYTES)
    except OSError as error:
        raise NormlabError(
            f"{file} cannot be read ({error.strerror or error}): make it readable or leave it out "
            "of data.path."
        ) from error


def _decode_chunk(decoder: codecs.IncrementalDecoder, chunk: bytes, file: Path, offset: int) -> str:
    pending = len(decoder.getstate()[0])  # bytes of a character that the last chunk cut
    try:
        return decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        start = offset - pending + error.start
        raise _not_text_error(file, "bytes that are not UTF-8", start) from error


def _not_text_error(file: Path, what: str, offset: int) -> NormlabError:
    return NormlabError(
        f"{file} is not text: it holds {what} at offset {offset}; convert it to UTF-8 or leave it "
        "out of data.path."
    )


# --- The cache of token ids ---------------------------------------------------------------------


def cache_folder() -> Path:
    """Where downloads and tokenized corpora stay between runs; it need not exist yet."""
    return user_cache_path("normlab")


@contextmanager
def report_cache_errors() -> Iterator[None]:
    """Turn the disk's refusal into one sentence. Raises NormlabError."""
    try:
        yield
    except OSError as error:
        raise NormlabError(
            f"The cache folder {cache_folder()} cannot be written ({error.strerror or error}): "
            "make room or give access there, or set XDG_CACHE_HOME to a folder that can be."
        ) from error


def open_corpus(files: Sequence[Path], tokens: str, vocabulary: int) -> Corpus:
    """The ids of all text in `files`, mapped from the cache, and their tokenizer.

    Each call reads the files once, for their digest. The first call reads them three times more, in
    chunks.

    Args:
        files: UTF-8 text, in this order.
        tokens: `characters` or `bpe`.
        vocabulary: how many tokens BPE may learn; characters do not use it.

    Raises:
        ConfigError: a BPE vocabulary below 256.
        NormlabError: a file is not text or cannot be read, no text at all, no space in the cache.
    """
    content = content_digest(files)
    # Another version of the library may learn other tokens from the same text.
    rule = [tokens, vocabulary, importlib.metadata.version("tokenizers")] if tokens == "bpe" else []
    key = hashlib.sha256(json.dumps([_CACHE_VERSION, rule, content]).encode()).hexdigest()[:32]
    stem = cache_folder() / "corpora" / key
    corpus = _load_corpus(stem)
    if corpus is None:
        _tokenize_files(stem, files, content, tokens, vocabulary)
        corpus = _load_corpus(stem)
    if corpus is None:
        raise NormlabError(f"{stem}.ids disappeared from the cache as it was made: run again.")
    return corpus


def _tokenize_files(
    stem: Path, files: Sequence[Path], content: str, tokens: str, vocabulary: int
) -> None:
    _log.info("Tokenizing %d files into %s.ids", len(files), stem)
    # Several processes may do this at once: each writes drafts of its own, all with the same bytes,
    # and the description comes last, so where one exists, the ids that it describes exist too.
    with report_cache_errors(), replace_atomically(stem.with_suffix(".ids")) as draft:
        with draft.open("wb") as out:
            tokenizer: CharacterTokenizer | BytePairTokenizer
            if tokens == "bpe":
                tokenizer = BytePairTokenizer.learn(read_text_chunks(files), vocabulary)
            else:
                tokenizer = CharacterTokenizer.from_text(read_text_chunks(files))
            dtype = _ID_TYPES[tokenizer.vocabulary > 2**16]
            for text in read_text_chunks(files):
                tokenizer.encode_corpus(text).astype(dtype).tofile(out)
        if draft.stat().st_size == 0:
            empty = f"{files[0]} is" if len(files) == 1 else f"{files[0]} and all other files are"
            raise NormlabError(f"{empty} empty: give data.path=… a text.")
        # Before the ids get their name, which says what text they are of.
        if content_digest(files) != content:
            raise NormlabError("The files of data.path changed while they were read: run again.")
        description = {
            "dtype": dtype,
            "digest": corpus_digest(_map_ids(draft, dtype), tokenizer),
            "tokenizer": tokenizer.to_json(),
        }
    with report_cache_errors():
        write_text(stem.with_suffix(".json"), json.dumps(description))


def _load_corpus(stem: Path) -> Corpus | None:
    """The corpus of `stem`, or None where it is missing, cut or damaged."""
    description_file, ids_file = stem.with_suffix(".json"), stem.with_suffix(".ids")
    if not (description_file.is_file() and ids_file.is_file()):  # opening a pipe would not return
        return None
    try:
        description = json.loads(description_file.read_text(encoding="utf-8"))
        if description["dtype"] not in _ID_TYPES:
            return None
        ids = _map_ids(ids_file, description["dtype"])
        tokenizer = tokenizer_from_json(description["tokenizer"])
        digest = corpus_digest(ids, tokenizer)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, NormlabError):
        return None
    intact = digest == description["digest"] and int(ids.max()) < tokenizer.vocabulary
    return Corpus(ids, tokenizer, digest) if intact else None


def _map_ids(path: Path, dtype: str) -> Ids:
    # A plain view of the mapping: indexing np.memmap itself is several times slower.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
