"""Windows of a corpus: training draws from the first part, validation scores all of the rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.data import IGNORED
from normlab.data.sources import Corpus, CorpusSource, validation_batches
from normlab.data.tokenizers import CharacterTokenizer, build_alphabet
from normlab.errors import ConfigError

ANY = CharacterTokenizer(build_alphabet(5000))


def counting(length, context=8, batch_size=3, fraction=0.25, windows=None):
    """A corpus whose token is its place, so a token says where it comes from."""
    return CorpusSource(
        Corpus(np.arange(length, dtype=np.uint16), ANY, "00"),
        "this corpus",
        context=context,
        batch_size=batch_size,
        validation_fraction=fraction,
        validation_windows=windows,
    )


@settings(deadline=None)
@given(context=st.integers(1, 40), extra=st.integers(0, 200))
def test_validation_scores_every_token_but_the_first_exactly_once(context, extra):
    length = context + 1 + extra
    scored = []
    for batch in validation_batches(np.arange(length, dtype=np.uint16), context, None):
        assert batch.tokens.shape[1] == batch.targets.shape[1] == context
        here = batch.targets != IGNORED
        np.testing.assert_array_equal(batch.targets[here], batch.tokens[here] + 1)
        scored += batch.targets[here].tolist()
    assert scored == list(range(1, length))


@given(context=st.integers(1, 9), extra=st.integers(0, 300), count=st.integers(1, 50))
def test_fewer_validation_windows_are_some_of_all_evenly_spaced(context, extra, count):
    ids = np.arange(context + 1 + extra, dtype=np.uint16)
    rows = [
        np.concatenate([batch.targets for batch in validation_batches(ids, context, n)])
        for n in (None, count)
    ]
    everything, some = [[tuple(row) for row in windows.tolist()] for windows in rows]
    places = [everything.index(row) for row in some]
    assert len(set(places)) == min(count, len(everything))
    if len(places) > 1:
        assert places[0] == 0
        assert places[-1] == len(everything) - 1
        assert np.ptp(np.diff(places)) <= 1


def test_validation_batches_hold_about_8192_tokens():
    held_out = counting(4000, context=64, fraction=0.9).validation()
    assert [len(batch.tokens) for batch in held_out] == [57]
    held_out = counting(4000, context=16, fraction=0.9).validation()
    assert [len(batch.tokens) for batch in held_out] == [225]
    held_out = validation_batches(np.arange(65_000, dtype=np.uint16), 64, None)
    assert len(held_out) == 8
    assert [len(batch.tokens) for batch in held_out] == [128] * 7 + [120]
    assert [batch.tokens[0, 0] for batch in held_out] == [n * 8192 for n in range(8)]


def test_training_windows_lie_anywhere_in_the_training_part_and_nowhere_else():
    source = counting(60, context=8)  # 45 tokens to train on: 37 places
    batches = [source.batch(0, step) for step in range(600)]
    starts = np.concatenate([batch.tokens[:, 0] for batch in batches])
    for batch in batches:
        np.testing.assert_array_equal(
            batch.tokens, batch.tokens[:, :1] + np.arange(8, dtype=np.int64)
        )
        np.testing.assert_array_equal(batch.targets, batch.tokens + 1)
    assert set(starts.tolist()) == set(range(37))
    assert np.bincount(starts).max() < 2 * np.bincount(starts).mean()
    assert min(batch.tokens.min() for batch in source.validation()) == 45


def test_a_batch_is_a_function_of_seed_and_step():
    one, other = counting(4000), counting(4000)
    forward = [one.batch(5, step).tokens for step in range(20)]
    for step in reversed(range(20)):
        np.testing.assert_array_equal(other.batch(5, step).tokens, forward[step])
    assert len({tokens.tobytes() for tokens in forward}) == 20
    assert not np.array_equal(other.batch(6, 0).tokens, forward[0])
    batch = one.batch(5, 0)
    assert batch.tokens.shape == (3, 8)
    assert batch.tokens.dtype == batch.targets.dtype == np.int64


def test_the_split_is_nanogpt_s():
    source = counting(4999, fraction=0.1)
    assert min(batch.tokens.min() for batch in source.validation()) == int(0.9 * 4999)


def test_the_longest_context_is_named_and_works():
    # 40 tokens: 30 to train on, 10 to validate on.
    with pytest.raises(ConfigError) as refused:
        counting(40, context=10)
    assert str(refused.value).startswith(
        "model.context=10 needs 11 tokens in each split, but this corpus gives 30 for training "
        "and 10 for validation: model.context=9 is the longest possible"
    )
    source = counting(40, context=9)
    assert source.batch(0, 0).tokens.shape == (3, 9)
    assert len(source.validation()) == 1


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_corpus_too_short_for_any_context_is_refused(length):
    with pytest.raises(ConfigError, match="add text"):
        counting(length, context=1)


def test_a_training_part_of_one_window_is_enough():
    assert counting(36, context=8, fraction=0.75).batch(0, 0).tokens[:, 0].tolist() == [0, 0, 0]
