"""A tokenised corpus in windows: random ones to train on, all of its last part to be judged by."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from normlab.data.contracts import IGNORED, VALIDATION_TOKENS, Batch, Tokenizer
from normlab.data.options import at_least, between
from normlab.data.seeding import Stream, generator
from normlab.errors import ConfigError

_PIECE_BYTES = 2**20

Ids = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Corpus:
    """A tokenised text.

    Attributes:
        ids: the tokens, (tokens,), in memory or mapped from a file.
        tokenizer: where the ids come from.
        digest: `corpus_digest` of both.
    """

    ids: Ids
    tokenizer: Tokenizer
    digest: str


class CorpusSource:
    """Windows of one long sequence of tokens, split by position into training and validation.

    Args:
        corpus: the tokens, and where they come from.
        name: the corpus in the user's words, for messages.
        context: T, tokens a window.
        batch_size: B, windows a training batch.
        validation_fraction: the part at the end that is kept for validation.
        validation_windows: how many windows of it to judge by, evenly spaced; None for all.

    Raises:
        ConfigError: a value out of range, a split shorter than `context` + 1 or of one token only.
    """

    def __init__(
        self,
        corpus: Corpus,
        name: str,
        *,
        context: int,
        batch_size: int,
        validation_fraction: float,
        validation_windows: int | None,
    ) -> None:
        check_ranges(batch_size, validation_fraction, validation_windows)
        cut = int((1 - validation_fraction) * len(corpus.ids))
        self._train, held_out = corpus.ids[:cut], corpus.ids[cut:]
        _check_length(name, context, len(self._train), len(held_out))
        _check_variety(name, corpus.tokenizer, training=self._train, validation=held_out)
        self._validation = ValidationWindows(held_out, context, validation_windows)
        self._offsets = np.arange(context + 1)
        self.batch_size = batch_size
        self.tokenizer = corpus.tokenizer
        self.vocabulary = corpus.tokenizer.vocabulary
        self.floor: float | None = None
        self.digest: str | None = corpus.digest

    def batch(self, seed: int, step: int) -> Batch:
        """Training batch `step` of stream `seed`: windows at uniformly random places, (B, T)."""
        last = len(self._train) - len(self._offsets)
        starts = generator(Stream.TRAINING, seed, step).integers(last + 1, size=self.batch_size)
        windows = self._train[starts[:, None] + self._offsets]
        return Batch(windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64))

    def validation(self) -> Sequence[Batch]:
        """The validation split, about 8192 tokens a batch, each read when it is asked for."""
        return self._validation


class ValidationWindows(Sequence[Batch]):
    """Non-overlapping windows that score every token of a split but the first exactly once.

    The last window ends where the split ends; what the one before has scored is IGNORED in it.
    With `count`, that many of the windows, evenly spaced.
    """

    def __init__(self, ids: Ids, context: int, count: int | None) -> None:
        windows = -(-(len(ids) - 1) // context)
        chosen = np.arange(windows)
        if count is not None and count < windows:
            chosen = np.arange(count) * (windows - 1) // max(1, count - 1)
        self._ids = ids
        self._wanted = chosen * context
        self._starts = np.minimum(self._wanted, len(ids) - 1 - context)
        self._offsets = np.arange(context + 1)
        self._size = max(1, VALIDATION_TOKENS // context)

    def __len__(self) -> int:
        return -(-len(self._starts) // self._size)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        first = range(len(self))[index] * self._size
        here = slice(first, first + self._size)
        places = self._starts[here, None] + self._offsets
        windows = self._ids[places].astype(np.int64)
        targets = windows[:, 1:].copy()
        targets[places[:, :-1] < self._wanted[here, None]] = IGNORED
        return Batch(windows[:, :-1].copy(), targets)


def corpus_digest(ids: Ids, tokenizer: Tokenizer) -> str:
    """CRC-32 of all ids, then that of their tokenizer, 16 hexadecimal digits; about 2 GB/s."""
    content = np.ascontiguousarray(ids).view(np.uint8)
    crc = 0
    for first in range(0, len(content), _PIECE_BYTES):
        crc = zlib.crc32(content[first : first + _PIECE_BYTES].tobytes(), crc)
    return f"{crc:08x}{zlib.crc32(tokenizer.to_json().encode()):08x}"


def check_ranges(batch_size: int, fraction: float, windows: int | None) -> None:
    """ConfigError where a value is out of range; cheap, so it can go before a corpus is read."""
    at_least("data.batch_size", batch_size, 1)
    between("data.validation_fraction", fraction, 0, 1)
    if windows is not None:
        at_least("data.validation_windows", windows, 1)


def _check_length(name: str, context: int, train: int, validation: int) -> None:
    longest = min(train, validation) - 1
    if longest >= context:
        return
    advice = f"model.context={longest} is the longest possible" if longest > 0 else "add text"
    raise ConfigError(
        f"model.context={context} needs {context + 1} tokens in each split, but {name} gives "
        f"{train} for training and {validation} for validation: {advice}, or change "
        "data.validation_fraction."
    )


def _check_variety(name: str, tokenizer: Tokenizer, **splits: Ids) -> None:
    for split, ids in splits.items():
        pieces = (ids[first : first + _PIECE_BYTES] for first in range(0, len(ids), _PIECE_BYTES))
        if all((piece == ids[0]).all() for piece in pieces):
            only = ascii(tokenizer.decode([int(ids[0])]))
            raise ConfigError(
                f"{name} holds nothing but {only} in the {len(ids)} tokens of its {split} split, "
                f"so there is nothing to predict: give a text with at least two different tokens "
                f"in each split, or change data.validation_fraction."
            )
