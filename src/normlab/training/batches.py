"""Batches by step, as Lightning wants them: an iterable that knows its length and its place."""

from collections.abc import Iterator

import torch
from torch import Tensor

from normlab.data import Batch, Source

Pair = tuple[Tensor, Tensor]


class TrainingBatches:
    """Batch i is a function of (seed, i): every run sees the same, and can go on exactly."""

    def __init__(self, source: Source, seed: int, count: int, first: int = 0) -> None:
        self.source = source
        self.seed = seed
        self.count = count
        self.first = first

    def __len__(self) -> int:
        return self.count  # of the whole run: a run that goes on at its end is no empty one

    def __iter__(self) -> Iterator[Pair]:
        for index in range(self.first, self.count):
            yield tensors(self.source.batch(self.seed, index))


class ValidationBatches:
    """The fixed validation windows, the same for every run on this data."""

    def __init__(self, source: Source) -> None:
        self.pairs = [tensors(batch) for batch in source.validation()]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)


def tensors(batch: Batch) -> Pair:
    """Tokens and targets, each (B, T) int64, sharing the batch's memory."""
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
