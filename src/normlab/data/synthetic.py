"""Endless artificial languages whose lowest reachable loss is known exactly.

A Markov language gives every sequence a transition matrix of its own, so a model can only do well
by learning the sequence's statistics from its context: the smallest task that needs attention.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from normlab.data.sources import VALIDATION_TOKENS, Batch, RandomUse, random_generator
from normlab.data.tokenizers import CharacterTokenizer, build_alphabet
from normlab.errors import ConfigError

_MOST_CONTEXTS = 2**15
# How much is drawn at once: the memory of the urns, the steps of a block, its symbols. They decide
# the order of the random numbers, so that another value gives other batches for the same seed.
_URN_BYTES = 2**26
_MOST_BLOCK_STEPS = 32
_BLOCK_SYMBOLS = 2**18

Symbols = NDArray[np.int64]


class Language(Protocol):
    """A distribution over sequences of symbols, and its best predictor."""

    def draw_sequences(self, random: np.random.Generator, sequences: int, length: int) -> Symbols:
        """Fresh sequences, (sequences, length)."""

    def bayes_loss(self, symbols: Symbols) -> NDArray[np.float64]:
        """The Bayes-optimal in-context predictor's loss on each symbol, nats, same shape."""


class UniformLanguage:
    """Independent uniform symbols: nothing to learn, the loss is ln(vocabulary)."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def draw_sequences(self, random: np.random.Generator, sequences: int, length: int) -> Symbols:
        """Fresh sequences, (sequences, length)."""
        return random.integers(self.vocabulary, size=(sequences, length))

    def bayes_loss(self, symbols: Symbols) -> NDArray[np.float64]:
        """ln(vocabulary) for each symbol, nats."""
        return np.full(symbols.shape, np.log(self.vocabulary))


class MarkovLanguage:
    """Markov chains, each with its own transition matrix of shape (V**order, V).

    Every row is drawn from Dirichlet(α, …, α), α = `concentration`; the first `order` symbols are
    uniform. The matrix is never built: with its rows integrated out, the successors of a context c
    are a Pólya urn, p(a | c) = (n(c, a) + α) / (n(c) + Vα) with n the counts in the sequence so
    far (Blackwell & MacQueen 1973). The same formula is the best predictor there is.
    """

    def __init__(self, vocabulary: int, order: int, concentration: float) -> None:
        self.vocabulary = vocabulary
        self.order = order
        self.concentration = concentration

    def draw_sequences(self, random: np.random.Generator, sequences: int, length: int) -> Symbols:
        """Fresh sequences, (sequences, length)."""
        bytes_a_sequence = 2 * self.vocabulary**self.order * length
        group = max(1, _URN_BYTES // bytes_a_sequence)
        sizes = [min(group, sequences - first) for first in range(0, sequences, group)]
        return np.concatenate([self._draw_from_urns(random, size, length) for size in sizes])

    def _draw_from_urns(self, random: np.random.Generator, sequences: int, length: int) -> Symbols:
        contexts = self.vocabulary**self.order
        fresh_mass = self.vocabulary * self.concentration
        # Time comes first, so that each step of the loop reads and writes whole rows.
        symbols = random.integers(self.vocabulary, size=(length, sequences))
        uniform = random.random(size=(length, sequences))
        # Urns are flat, so that one index finds one: (sequences · contexts,) and, with the symbols
        # that were drawn in their order, (sequences · contexts · length,).
        visits = np.zeros(sequences * contexts, dtype=np.int64)
        # uint16 holds every symbol: a vocabulary is at most _MOST_CONTEXTS.
        successors = np.empty(sequences * contexts * length, dtype=np.uint16)

        first_urn = np.arange(sequences) * contexts
        context = np.zeros(sequences, dtype=np.int64)
        for t in range(length):
            if t >= self.order:
                urn = first_urn + context
                count = visits[urn]
                # Below the count it is one of the earlier successors, each as likely; above, the
                # uniform symbol that is already there. (Masked picks read whatever is in memory.)
                pick = uniform[t] * (count + fresh_mass)
                slot = urn * length
                earlier = successors[slot + np.minimum(pick, length - 1).astype(np.int64)]
                symbols[t] = np.where(pick < count, earlier, symbols[t])
                successors[slot + count] = symbols[t]
                visits[urn] = count + 1
            context = (context * self.vocabulary + symbols[t]) % contexts
        return symbols.T

    def bayes_loss(self, symbols: Symbols) -> NDArray[np.float64]:
        """The Bayes-optimal in-context predictor's loss on each symbol, nats, same shape."""
        nats = np.full(symbols.shape, np.log(self.vocabulary))
        scored = symbols[:, self.order :]  # (sequences, length - order)
        context = np.zeros_like(scored)
        for lag in range(self.order):
            context = context * self.vocabulary + symbols[:, lag : lag + scored.shape[1]]
        seen_pair = _count_earlier_equals(context * self.vocabulary + scored)
        seen_context = _count_earlier_equals(context)
        mass = seen_context + self.vocabulary * self.concentration
        nats[:, self.order :] = -np.log((seen_pair + self.concentration) / mass)
        return nats


def _count_earlier_equals(values: Symbols) -> NDArray[np.int64]:
    """For each entry, how many entries before it in its row are equal to it.

    By sorting: equal entries then stand in runs, in which an entry's rank is its count.
    """
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    rank = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    starts_run = np.ones(values.shape, dtype=bool)
    starts_run[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    run_start = np.maximum.accumulate(np.where(starts_run, rank, 0), axis=1)
    counts = np.empty_like(values)
    np.put_along_axis(counts, order, rank - run_start, axis=1)
    return counts


class SyntheticSource:
    """Batches of a synthetic language, whose floor is that of its validation sequences.

    Args:
        context: T, tokens a sequence.
        batch_size: B, sequences a batch.
        source: `markov` or `random`.
        vocabulary: V, the number of symbols.
        order: how many symbols the next one depends on (markov).
        concentration: Dirichlet's α (markov): small is predictable, large is uniform.
        validation_windows: how many sequences to validate on.

    Raises:
        ConfigError: values that do not make a language.
    """

    def __init__(
        self,
        context: int,
        batch_size: int = 16,
        source: str = "markov",
        vocabulary: int = 8,
        order: int = 1,
        concentration: float = 0.2,
        validation_windows: int | None = 256,
    ) -> None:
        self.batch_size = batch_size
        self.vocabulary = vocabulary
        if validation_windows is None:
            raise ConfigError(
                "data.validation_windows=null: the language is endless; give a number."
            )
        self._language = _build_language(source, vocabulary, order, concentration, context)
        self._length = context + 1
        fitting = _BLOCK_SYMBOLS // (self.batch_size * self._length)
        self._block_steps = max(1, min(_MOST_BLOCK_STEPS, fitting))
        self._block: tuple[int, int, Symbols] | None = None
        self._validation = self._language.draw_sequences(
            random_generator(RandomUse.VALIDATION, 0, 0), validation_windows, self._length
        )
        self.floor: float | None = float(self.floor_by_position().mean())
        self.digest: str | None = None  # its options say all of it
        self.tokenizer = CharacterTokenizer(build_alphabet(vocabulary))

    def floor_by_position(self) -> NDArray[np.float64]:
        """The floor of each position's target, (T,), nats; its mean is `floor`."""
        by_position: NDArray[np.float64] = self._language.bayes_loss(self._validation).mean(axis=0)
        # The first symbol is no target.
        return by_position[1:]

    def batch(self, seed: int, step: int) -> Batch:
        """Training batch `step` of seed `seed`, (B, T), whatever was drawn before."""
        block, offset = divmod(step, self._block_steps)
        # Drawing many steps at once is several times cheaper a step; the last block is cached.
        if self._block is None or self._block[:2] != (seed, block):
            random = random_generator(RandomUse.TRAINING, seed, block)
            count = self._block_steps * self.batch_size
            sequences = self._language.draw_sequences(random, count, self._length)
            self._block = (seed, block, sequences)
        first = offset * self.batch_size
        return _make_batch(self._block[2][first : first + self.batch_size])

    def validation(self) -> Sequence[Batch]:
        """The validation sequences, about 8192 tokens a batch."""
        size = max(1, VALIDATION_TOKENS // (self._length - 1))
        firsts = range(0, len(self._validation), size)
        return [_make_batch(self._validation[first : first + size]) for first in firsts]


def _make_batch(symbols: Symbols) -> Batch:
    # Copies, for the caller may write into them, and the sequences are used again.
    return Batch(symbols[:, :-1].copy(), symbols[:, 1:].copy())


def _build_language(
    source: str, vocabulary: int, order: int, concentration: float, context: int
) -> Language:
    if source == "random":
        if vocabulary > _MOST_CONTEXTS:
            raise ConfigError(
                f"data.vocabulary={vocabulary} is too large: stay at or below {_MOST_CONTEXTS}."
            )
        return UniformLanguage(vocabulary)
    if order > context:
        raise ConfigError(
            f"data.order={order} needs more symbols than model.context={context} shows: "
            f"give an order of at most {context}."
        )
    if vocabulary**order > _MOST_CONTEXTS:
        raise ConfigError(
            f"data.vocabulary={vocabulary} with data.order={order} has too many contexts: keep "
            f"vocabulary to the power order at or below {_MOST_CONTEXTS}."
        )
    return MarkovLanguage(vocabulary, order, concentration)
