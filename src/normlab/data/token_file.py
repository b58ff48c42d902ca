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
from normlab.data.files import content_digest, text_chunks
from normlab.data.tokens import BytePairTokenizer, CharacterTokenizer, tokenizer_from_json
from normlab.data.windows import Corpus, Ids, corpus_digest
from normlab.errors import NormlabError

_VERSION = 2
_DTYPES = ("<u2", "<u4")  # an array of Python's objects would follow the file's bytes as addresses
_log = logging.getLogger(__name__)


def tokenized(files: Sequence[Path], tokens: str, vocabulary: int) -> Corpus:
    """The ids of all text in `files`, mapped from the cache, and their tokenizer.

    What the files hold is the name in the cache: each call reads them once to work it out. The
    first call reads them three times more, in chunks, so a corpus may be larger than memory.

    Args:
        files: UTF-8 text, in this order.
        tokens: `characters` or `bpe`.
        vocabulary: how many tokens BPE may learn; characters do not use it.

    Raises:
        ConfigError: a BPE vocabulary below 256.
        NormlabError: a file is not text or cannot be read, no text at all, no room in the cache.
    """
    content = content_digest(files)
    rule = [tokens, vocabulary, importlib.metadata.version("tokenizers")] if tokens == "bpe" else []
    key = hashlib.sha256(json.dumps([_VERSION, rule, content]).encode()).hexdigest()[:32]
    stem = cache_folder() / "corpora" / key
    corpus = _load(stem)
    if corpus is None:
        _build(stem, files, content, tokens, vocabulary)
        corpus = _load(stem)
    if corpus is None:
        raise NormlabError(f"{stem}.ids disappeared from the cache as it was made: run again.")
    return corpus


def _build(stem: Path, files: Sequence[Path], content: str, tokens: str, vocabulary: int) -> None:
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
        # Before the ids get their name: it says what text they are of.
        if content_digest(files) != content:
            raise NormlabError("The files of data.path changed while they were read: run again.")
        described = {
            "dtype": dtype,
            "digest": corpus_digest(_map(draft, dtype), tokenizer),
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


def _load(stem: Path) -> Corpus | None:
    """The corpus of `stem`, or None where it is not there, cut or damaged."""
    description, ids_file = stem.with_suffix(".json"), stem.with_suffix(".ids")
    if not (description.is_file() and ids_file.is_file()):
        return None
    try:
        described = json.loads(description.read_text(encoding="utf-8"))
        if described["dtype"] not in _DTYPES:
            return None
        ids = _map(ids_file, described["dtype"])
        tokenizer: Tokenizer = tokenizer_from_json(described["tokenizer"])
        digest = corpus_digest(ids, tokenizer)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, NormlabError):
        return None
    intact = digest == described["digest"] and int(ids.max()) < tokenizer.vocabulary
    return Corpus(ids, tokenizer, digest) if intact else None


def _map(path: Path, dtype: str) -> Ids:
    # A plain view of the mapping: indexing np.memmap itself is several times slower.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
