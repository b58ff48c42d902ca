"""What every source of data gives: batches by step, a fixed validation set, a tokenizer."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""The target of a position that is not scored; the default `ignore_index` of cross-entropies."""

VALIDATION_TOKENS = 8192
"""About how many tokens a validation batch holds."""


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
        """Everything that `tokenizer_from_json` needs to rebuild it."""


class Source(Protocol):
    """Data to train on and to be judged by."""

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
        """Training batch number `step` (from 0) of stream `seed`: a pure function of the two."""

    def validation(self) -> Sequence[Batch]:
        """The same batches every time and for every seed; none is in the training stream."""


def unigram_loss(source: Source) -> float:
    """The lowest loss of a guess that ignores the context, in nats per token.

    It is the entropy of the tokens that the validation windows score: whoever is not below it has
    learned how frequent tokens are, and nothing else.
    """
    counts = np.zeros(source.vocabulary, dtype=np.int64)
    for batch in source.validation():
        scored = batch.targets[batch.targets != IGNORED]
        counts += np.bincount(scored, minlength=source.vocabulary)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
