"""Sources of tokens: batches by step, a fixed validation set, a tokenizer.

`Source` is what every kind of data gives; `CorpusSource` is windows of one tokenized text. Random
generators are seeded by (use, seed, index), so a batch does not depend on any before it.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from normlab.errors import ConfigError

IGNORED = -100
"""The target of a position that is not scored; the default `ignore_index` of cross-entropies."""

VALIDATION_TOKENS = 8192
"""About how many tokens a validation batch holds."""

_PIECE_IDS = 2**20  # read at once from a corpus that may be larger than memory

Ids = NDArray[np.unsignedinteger[Any]]


class Batch(NamedTuple):
    """Windows of tokens, and what comes next in them. The arrays belong to the caller."""

    tokens: NDArray[np.int64]
    """(B, T)"""
    targets: NDArray[np.int64]
    """(B, T): the token after each of `tokens`, IGNORED where it is not scored."""


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def vocabulary(self) -> int:
        """The number of token ids: they are 0 … vocabulary - 1."""

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; ConfigError names the characters that have none."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; ConfigError where one is not in the vocabulary."""

    def to_json(self) -> str:
        """All that `tokenizer_from_json` needs to rebuild it."""


class Source(Protocol):
    """Data to train on and to validate on."""

    vocabulary: int
    """The number of token ids."""
    floor: float | None
    """The lowest loss reachable on `validation()`, nats per token; None where nobody knows it."""
    digest: str | None
    """What the data is, where the options alone do not say it: a checksum of the corpus."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the tokens come from."""

    def batch(self, seed: int, step: int) -> Batch:
        """Training batch number `step` (from 0) of seed `seed`: a pure function of the two."""

    def validation(self) -> Sequence[Batch]:
        """The same batches every time and for every seed; none is in the training stream."""


def unigram_loss(source: Source) -> float:
    """The lowest loss of a guess that ignores the context, in nats per token.

    It is the entropy of the tokens that the validation windows score, which of few tokens is below
    what is true, and so never less than the floor: a model that is not below it has learned how
    frequent tokens are, and nothing else.
    """
    counts = np.zeros(source.vocabulary, dtype=np.int64)
    for batch in source.validation():
        scored = batch.targets[batch.targets != IGNORED]
        counts += np.bincount(scored, minlength=source.vocabulary)
    shares = counts[counts > 0] / counts.sum()
    return max(float(-(shares * np.log(shares)).sum()), source.floor or 0.0)


# --- Random numbers -----------------------------------------------------------------------------


class RandomUse(IntEnum):
    """What random numbers are for, so that no two uses ever share them. Never renumber."""

    TRAINING = 1
    VALIDATION = 2


def random_generator(use: RandomUse, seed: int, index: int) -> np.random.Generator:
    """The generator of block or batch `index` for `use` under `seed`; independent of all others."""
    # SeedSequence mixes the three, so that neighbouring seeds and steps give unrelated numbers.
    entropy = np.random.SeedSequence([use, seed, index])
    return np.random.Generator(np.random.PCG64(entropy))


# --- Windows of a corpus ------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """A tokenized text.

    Attributes:
        ids: the tokens, (tokens,), in memory or mapped from a file.
        tokenizer: where the ids come from.
        digest: `corpus_digest` of both.
    """

    ids: Ids
    tokenizer: Tokenizer
    digest: str


def corpus_digest(ids: Ids, tokenizer: Tokenizer) -> str:
    """CRC-32 of all ids, then that of their tokenizer, 16 hexadecimal digits; about 2 GB/s."""
    crc = 0
    for piece in _iterate_pieces(ids):
        crc = zlib.crc32(piece.tobytes(), crc)
    return f"{crc:08x}{zlib.crc32(tokenizer.to_json().encode()):08x}"


class CorpusSource:
    """Windows of one long sequence of tokens, split by position into training and validation.

    Args:
        corpus: the tokens, and where they come from.
        name: the corpus in the user's words, for messages.
        context: T, tokens a window.
        batch_size: B, windows a training batch.
        validation_fraction: the part at the end that training never sees.
        validation_windows: how many windows of it to validate on, evenly spaced; None for all.

    Raises:
        ConfigError: a split is shorter than `context` + 1, or of one token only.
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
        # Rounded as nanoGPT does it, so that its split of TinyShakespeare is this one.
        cut = int((1 - validation_fraction) * len(corpus.ids))
        self._train, self._held_out = corpus.ids[:cut], corpus.ids[cut:]
        _check_length(name, context, len(self._train), len(self._held_out))
        _check_variety(name, corpus.tokenizer, training=self._train, validation=self._held_out)
        self._windows = validation_windows
        self._offsets = np.arange(context + 1)
        self.batch_size = batch_size
        self.tokenizer = corpus.tokenizer
        self.vocabulary = corpus.tokenizer.vocabulary
        self.floor: float | None = None
        self.digest: str | None = corpus.digest

    def batch(self, seed: int, step: int) -> Batch:
        """Training batch `step` of seed `seed`: windows at uniformly random offsets, (B, T)."""
        last = len(self._train) - len(self._offsets)
        random = random_generator(RandomUse.TRAINING, seed, step)
        # Independent draws: nanoGPT's recipe ended at 1.900 with them, at 1.921 with every window
        # once an epoch (docs/log.md).
        starts = random.integers(last + 1, size=self.batch_size)
        windows = self._train[starts[:, None] + self._offsets]  # (B, T + 1)
        return Batch(windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64))

    def validation(self) -> Sequence[Batch]:
        """The validation split, about 8192 tokens a batch."""
        return validation_batches(self._held_out, len(self._offsets) - 1, self._windows)


def validation_batches(ids: Ids, context: int, count: int | None) -> list[Batch]:
    """Non-overlapping windows that score each token of a split but the first exactly once.

    The last window ends where the split ends; what the one before has scored is IGNORED in it.
    With `count`, that many of the windows, evenly spaced.
    """
    windows = -(-(len(ids) - 1) // context)
    chosen = np.arange(windows)
    if count is not None and count < windows:
        # Of two or more, the first and the last window are among them.
        chosen = np.arange(count) * (windows - 1) // max(1, count - 1)
    scored_from = chosen * context
    starts = np.minimum(scored_from, len(ids) - 1 - context)
    size = max(1, VALIDATION_TOKENS // context)
    batches = []
    for first in range(0, len(starts), size):
        part = slice(first, first + size)
        positions = starts[part, None] + np.arange(context + 1)  # (B, T + 1)
        tokens = ids[positions].astype(np.int64)
        targets = tokens[:, 1:].copy()
        targets[positions[:, :-1] < scored_from[part, None]] = IGNORED
        batches.append(Batch(tokens[:, :-1].copy(), targets))
    return batches


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
        if all((piece == ids[0]).all() for piece in _iterate_pieces(ids)):
            only = ascii(tokenizer.decode([int(ids[0])]))
            raise ConfigError(
                f"{name} holds nothing but {only} in the {len(ids)} tokens of its {split} split, "
                f"so there is nothing to predict: give a text with at least two different tokens "
                f"in each split, or change data.validation_fraction."
            )


def _iterate_pieces(ids: Ids) -> Iterator[Ids]:
    return (ids[first : first + _PIECE_IDS] for first in range(0, len(ids), _PIECE_IDS))
