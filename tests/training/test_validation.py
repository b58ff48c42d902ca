"""The validation loss: over all windows, and over those of even and of odd index."""

import math

import pytest
import torch
from torch.nn import functional as F

from normlab.data import IGNORED
from normlab.training.module import ValidationSums

VOCABULARY = 7


def test_windows_are_halved_by_their_index_over_batches_of_any_size() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 5, VOCABULARY, generator=generator)
    targets = torch.randint(VOCABULARY, (9, 5), generator=generator)
    targets[3, :4] = IGNORED
    targets[8] = IGNORED

    def mean(windows: slice) -> float:
        part = logits[windows].double().flatten(0, 1), targets[windows].flatten()
        return float(F.cross_entropy(*part, ignore_index=IGNORED))

    sums = ValidationSums()
    for first, last in ((0, 3), (3, 4), (4, 9)):
        batch = targets[first:last]
        losses = F.cross_entropy(
            logits[first:last].flatten(0, 1), batch.flatten(), ignore_index=IGNORED,
            reduction="none",
        )  # fmt: skip
        sums.add(losses.view_as(batch), batch)
    whole, selection, test = sums.means().tolist()
    assert whole == pytest.approx(mean(slice(None)), rel=1e-6)
    assert selection == pytest.approx(mean(slice(0, None, 2)), rel=1e-6)
    assert test == pytest.approx(mean(slice(1, None, 2)), rel=1e-6)


def test_runs_of_a_stack_have_each_their_own() -> None:
    targets = torch.zeros(3, 2, dtype=torch.int64)
    losses = torch.tensor([[[1.0, 1], [2, 2], [3, 3]], [[5.0, 5], [7, 7], [9, 9]]])  # (R, B, T)
    sums = ValidationSums()
    sums.add(losses, targets)
    assert sums.means().tolist() == [[2, 2, 2], [7, 7, 7]]
    sums.add(losses[:, :1], targets[:1])  # of index 3
    assert sums.means().tolist() == [[1.75, 2, 1.5], [6.5, 7, 6]]


def test_one_window_has_no_second_half() -> None:
    sums = ValidationSums()
    sums.add(torch.ones(1, 4), torch.zeros(1, 4, dtype=torch.int64))
    whole, selection, test = sums.means().tolist()
    assert (whole, selection, math.isnan(test)) == (1, 1, True)
