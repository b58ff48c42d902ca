"""A corpus as a flat file of token ids, made once, kept in the user's cache and memory-mapped."""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from normlab.archive.durable import replacing, write_text
from normlab.data.cache import cache_folder, writing_to_cache
from normlab.data.contracts import Tokenizer
from normlab.data.files import text_chunks
from normlab.data.tokens import BytePairTokenizer, CharacterTokenizer, tokenizer_from_json
from normlab.data.windows import Ids, checksum
from normlab.errors import NormlabError

_VERSION = 1
_DTYPES = ("<u2", "<u4")  # an array of Python's objects would follow the file's bytes as addresses
_log = logging.getLogger(__name__)


def tokenized(files: Sequence[Path], tokens: str, vocabulary: int) -> tuple[Ids, Tokenizer]:
    """The ids of all text in `files`, (tokens,), mapped from the cache, and their tokenizer.

    The corpus is read twice, in chunks, so it may be larger than memory; the next call with the
    same files and options reads it no more.

    Args:
        files: UTF-8 text, in this order.
        tokens: `characters` or `bpe`.
        vocabulary: how many tokens BPE may learn; characters do not use it.

    Raises:
        ConfigError: a BPE vocabulary below 256.
        NormlabError: a file is not text or cannot be read, no text at all, no room in the cache.
    """
    key = _key(files, tokens, vocabulary)
    stem = cache_folder() / "corpora" / key
    found = _load(stem)
    if found is None:
        _build(stem, files, tokens, vocabulary)
        if _key(files, tokens, vocabulary) != key:
            raise NormlabError("The files of data.path changed while they were read: run again.")
        found = _load(stem)
    if found is None:
        raise NormlabError(f"{stem}.ids disappeared from the cache as it was made: run again.")
    return found


def _key(files: Sequence[Path], tokens: str, vocabulary: int) -> str:
    """What the token file depends on: another key is another file, so nothing goes stale."""
    rule = [tokens, vocabulary, importlib.metadata.version("tokenizers")] if tokens == "bpe" else []
    try:
        stamps = [
            (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files
        ]
    except OSError as error:
        raise NormlabError(
            f"{error.filename} cannot be read ({error.strerror}): leave it out of data.path."
        ) from error
    return hashlib.sha256(json.dumps([_VERSION, rule, stamps]).encode()).hexdigest()[:32]


def _build(stem: Path, files: Sequence[Path], tokens: str, vocabulary: int) -> None:
    _log.info("Tokenising %d files into %s.ids", len(files), stem)
    # Several processes may build at once: each writes drafts of its own, all with the same bytes,
    # and the description comes last, so whoever finds one finds the ids that it describes.
    with writing_to_cache(), replacing(stem.with_suffix(".ids")) as draft:
        with draft.open("wb") as out:
            tokenizer = _learn(files, tokens, vocabulary)
            dtype = _DTYPES[tokenizer.vocabulary > 2**16]
            for text in text_chunks(files):
                tokenizer.encode_corpus(text).astype(dtype).tofile(out)
        if draft.stat().st_size == 0:
            empty = f"{files[0]} is" if len(files) == 1 else f"{files[0]} and all other files are"
            raise NormlabError(f"{empty} empty: give data.path=… a text.")
        ids = _map(draft, dtype)
        described = {
            "dtype": dtype,
            "checksum": checksum(ids),
            "tokenizer": tokenizer.to_json(),
        }
    with writing_to_cache():
        write_text(stem.with_suffix(".json"), json.dumps(described))


def _learn(
    files: Sequence[Path], tokens: str, vocabulary: int
) -> CharacterTokenizer | BytePairTokenizer:
    if tokens == "bpe":
        return BytePairTokenizer.of(text_chunks(files), vocabulary)
    return CharacterTokenizer.of(text_chunks(files))


def _load(stem: Path) -> tuple[Ids, Tokenizer] | None:
    """The token file of `stem`, or None where it is not there whole."""
    try:
        described = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        if described["dtype"] not in _DTYPES:
            return None
        ids = _map(stem.with_suffix(".ids"), described["dtype"])
        if checksum(ids) != described["checksum"]:
            return None
        return ids, tokenizer_from_json(described["tokenizer"])
    except (OSError, ValueError, TypeError, KeyError, NormlabError):
        return None


def _map(path: Path, dtype: str) -> Ids:
    # A plain view of the mapping: indexing np.memmap itself is several times slower.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
