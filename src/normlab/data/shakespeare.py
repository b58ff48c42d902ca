"""TinyShakespeare by characters: the file known by its checksum, found here or downloaded once."""

import hashlib
import http.client
import logging
import os
import time
import urllib.request
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import numpy as np

from normlab.archive.files import replace_atomically
from normlab.data.sources import Corpus, CorpusSource, check_ranges, corpus_digest
from normlab.data.text import cache_folder, writing_to_cache
from normlab.data.tokenizers import CharacterTokenizer
from normlab.errors import NormlabError

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
BYTES = 1_115_394
NAME = "tinyshakespeare.txt"
TIMEOUT = 10.0
"""Seconds that a server may be silent."""
DEADLINE = 120.0
"""Seconds that a download may take, tries and pauses together."""
PAUSES = (1.0, 2.0)
"""Seconds between the tries of a download; one try more than there are pauses."""

_OTHER_NAME = "input.txt"
_log = logging.getLogger(__name__)


def open_shakespeare(
    context: int,
    batch_size: int = 12,
    path: str | None = None,
    validation_fraction: float = 0.1,
    validation_windows: int | None = None,
) -> CorpusSource:
    """TinyShakespeare in windows of `context` characters: 65 symbols, nanoGPT's 90/10 split.

    `path` is the file or the folder it lies in. Without it: the folder that NORMLAB_DATA names,
    the user's cache, then a download into the cache.

    Raises:
        ConfigError: a value out of range.
        NormlabError: the file is not there, is another text, or cannot be downloaded.
    """
    check_ranges(batch_size, validation_fraction, validation_windows)
    text = read_shakespeare(path)
    tokenizer = CharacterTokenizer.of([text])
    ids = tokenizer.encode_corpus(text).astype(np.uint16)
    return CorpusSource(
        Corpus(ids, tokenizer, corpus_digest(ids, tokenizer)),
        "TinyShakespeare",
        context=context,
        batch_size=batch_size,
        validation_fraction=validation_fraction,
        validation_windows=validation_windows,
    )


def read_shakespeare(path: str | None) -> str:
    """The text, 1,115,394 characters of ASCII; see `open_shakespeare` for where it is looked for.

    Raises:
        NormlabError: the file is not there, is another text, or cannot be downloaded.
    """
    if path:
        return _read_given(Path(os.path.expanduser(path)))
    folder = os.environ.get("NORMLAB_DATA")
    cached = cache_folder() / NAME
    if folder and os.path.isfile(given := Path(os.path.expanduser(folder), NAME)):
        return _read_checked(given, f"put the original there or unset NORMLAB_DATA={folder}")
    if not os.path.isfile(cached):
        _download(cached, f"NORMLAB_DATA={folder} holds no {NAME}, " if folder else "")
    return _read_checked(cached, "delete it and run again")


def _read_given(path: Path) -> str:
    places = [path / NAME, path / _OTHER_NAME] if os.path.isdir(path) else [path]
    for place in places:
        if os.path.isfile(place):
            return _read_checked(
                place, f"use data=text data.path={place} to train on a text of your own"
            )
    raise NormlabError(
        f"data.path={path} is neither TinyShakespeare nor a folder with {NAME} or {_OTHER_NAME}: "
        "correct it, or leave it out to download the file."
    )


def _read_checked(path: Path, advice: str) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(BYTES + 1)  # a longer file is another text: no need to hold it
    except OSError as error:
        raise NormlabError(f"{path} cannot be read ({error.strerror}): {advice}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise NormlabError(
            f"{path} is not TinyShakespeare (SHA-256 {found[:12]}… where {SHA256[:12]}… is "
            f"expected): {advice}."
        )
    return content.decode("ascii")


def _download(target: Path, tried: str) -> None:
    reason, tries, last = "", 0, time.monotonic() + DEADLINE
    for pause in (*PAUSES, None):
        tries += 1
        try:
            content = _fetch(last - time.monotonic())
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error).strip("<>") or type(error).__name__
            if pause is None or time.monotonic() + pause > last:
                break
            time.sleep(pause)
            continue
        with writing_to_cache(), replace_atomically(target) as draft:
            draft.write_bytes(content)
        _log.info("Downloaded %s into %s", URL, target)
        return
    raise NormlabError(
        f"TinyShakespeare was not found: {tried}{target} does not exist, and downloading {URL} "
        f"failed {tries} time{'' if tries == 1 else 's'} ({reason}); give its place as "
        f"data.path=…, set NORMLAB_DATA to a folder with {NAME}, or train with data=synthetic, "
        f"which needs no file."
    )


def _fetch(seconds: float) -> bytes:
    """The file from its server. Raises TimeoutError where it has not come after so many seconds.

    A timeout of the socket starts anew with every byte, of the headers too: only waiting for all of
    it from outside bounds the time. The thread that is left does not keep the process.
    """
    answers: SimpleQueue[bytes | Exception] = SimpleQueue()
    Thread(target=_ask, args=(URL, answers), daemon=True).start()
    try:
        content = answers.get(timeout=max(0.0, seconds))
    except Empty:
        raise TimeoutError(f"it was not there after {DEADLINE:g} s") from None
    if isinstance(content, Exception):
        raise content
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{len(content)} bytes came with SHA-256 {found[:12]}… where {SHA256[:12]}… is expected"
        )
    return content


def _ask(url: str, answers: "SimpleQueue[bytes | Exception]") -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            answers.put(response.read(BYTES + 1))
    except Exception as error:  # raised again where the answer is waited for
        answers.put(error)
