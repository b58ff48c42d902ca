"""TinyShakespeare by characters: checked against its digest, read from disk or downloaded once.

A download must come whole, match the digest and end by a deadline, whatever the server does. pooch
checks digests, but bounds only the silence between two bytes, not the time of all of them.
"""

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
from normlab.data.sources import Corpus, CorpusSource, corpus_digest
from normlab.data.text import cache_folder, report_cache_errors
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
        ConfigError: a split is too short for `context`.
        NormlabError: the file does not exist, is another text, or cannot be downloaded.
    """
    text = _read_shakespeare(path)
    tokenizer = CharacterTokenizer.from_text([text])
    ids = tokenizer.encode_corpus(text).astype(np.uint16)
    return CorpusSource(
        Corpus(ids, tokenizer, corpus_digest(ids, tokenizer)),
        "TinyShakespeare",
        context=context,
        batch_size=batch_size,
        validation_fraction=validation_fraction,
        validation_windows=validation_windows,
    )


def _read_shakespeare(path: str | None) -> str:
    if path:
        start = Path(os.path.expanduser(path))
        # os.path, for Path.is_file raises where a name is too long for the file system.
        files = [start / NAME, start / _OTHER_NAME] if os.path.isdir(start) else [start]
        for file in filter(os.path.isfile, files):
            return _read_checked_file(
                file, f"use data=text data.path={file} to train on a text of your own"
            )
        raise NormlabError(
            f"data.path={path} is neither TinyShakespeare nor a folder with {NAME} or "
            f"{_OTHER_NAME}: correct it, or leave it out to download the file."
        )
    folder = os.environ.get("NORMLAB_DATA")
    if folder and os.path.isfile(file := Path(os.path.expanduser(folder), NAME)):
        return _read_checked_file(file, f"put the original there or unset NORMLAB_DATA={folder}")
    cached = cache_folder() / NAME
    if not os.path.isfile(cached):
        _download_file(cached, f"NORMLAB_DATA={folder} holds no {NAME}, " if folder else "")
    return _read_checked_file(cached, "delete it and run again")


def _read_checked_file(path: Path, advice: str) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(BYTES + 1)  # a longer file is another text: no need to hold it
    except OSError as error:
        raise NormlabError(f"{path} cannot be read ({error.strerror}): {advice}.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise NormlabError(
            f"{path} is not TinyShakespeare (SHA-256 {digest[:12]}… where {SHA256[:12]}… is "
            f"expected): {advice}."
        )
    return content.decode("ascii")


def _download_file(target: Path, searched: str) -> None:
    """Download the file into the cache; `searched` says in an error where it was not."""
    reason, tries, deadline = "", 0, time.monotonic() + DEADLINE
    for pause in (*PAUSES, None):
        tries += 1
        try:
            content = _fetch_until(deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error).strip("<>") or type(error).__name__
            if pause is None or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
            continue
        with report_cache_errors(), replace_atomically(target) as draft:
            draft.write_bytes(content)
        _log.info("Downloaded %s into %s", URL, target)
        return
    raise NormlabError(
        f"TinyShakespeare was not found: {searched}{target} does not exist, and downloading {URL} "
        f"failed {tries} time{'' if tries == 1 else 's'} ({reason}); give its place as "
        f"data.path=…, set NORMLAB_DATA to a folder with {NAME}, or train with data=synthetic, "
        f"which needs no file."
    )


def _fetch_until(deadline: float) -> bytes:
    """The file from its server, checked. Raises TimeoutError where it has not come in time.

    A timeout of the socket starts anew with each byte, of the headers too: only waiting for all of
    it from outside bounds the time. The thread that is left does not keep the process alive.
    """
    answers: SimpleQueue[bytes | Exception] = SimpleQueue()

    def fetch_into_queue(url: str) -> None:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                answers.put(response.read(BYTES + 1))
        except Exception as error:  # raised again below
            answers.put(error)

    Thread(target=fetch_into_queue, args=(URL,), daemon=True).start()
    try:
        content = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        raise TimeoutError(f"it was not there after {DEADLINE:g} s") from None
    if isinstance(content, Exception):
        raise content
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"{len(content)} bytes came with SHA-256 {digest[:12]}… where {SHA256[:12]}… is "
            f"expected"
        )
    return content
