"""A synthetic language is what it says, and its floor is the lowest loss there is."""

import itertools
import math
import tracemalloc
from collections import Counter, defaultdict

import numpy as np
import pytest

from normlab.data import IGNORED, build_source
from normlab.data.synthetic import MarkovLanguage
from normlab.errors import ConfigError


def sequences(batches):
    return np.concatenate([np.concatenate([b.tokens, b.targets[:, -1:]], axis=1) for b in batches])


def predictive_loss(sequence, vocabulary, order, concentration):
    """The predictive rule as one would say it, a symbol at a time; nats for each symbol."""
    counts = defaultdict(Counter)
    nats = []
    for t, symbol in enumerate(sequence):
        if t < order:
            nats.append(math.log(vocabulary))
            continue
        successors = counts[tuple(sequence[t - order : t])]
        total = sum(successors.values())
        chance = (successors[symbol] + concentration) / (total + vocabulary * concentration)
        nats.append(-math.log(chance))
        successors[symbol] += 1
    return nats


def chance_of(sequence, vocabulary, order, concentration):
    """p(sequence) with the Dirichlet rows integrated out: products of gamma functions."""
    counts = defaultdict(Counter)
    for t in range(order, len(sequence)):
        counts[tuple(sequence[t - order : t])][sequence[t]] += 1
    log = -order * math.log(vocabulary)
    total_mass = vocabulary * concentration
    for successors in counts.values():
        log += math.lgamma(total_mass) - math.lgamma(total_mass + sum(successors.values()))
        for count in successors.values():
            log += math.lgamma(concentration + count) - math.lgamma(concentration)
    return math.exp(log)


def entropy_of_prefix(length, vocabulary, order, concentration):
    chances = [
        chance_of(sequence, vocabulary, order, concentration)
        for sequence in itertools.product(range(vocabulary), repeat=length)
    ]
    return -sum(chance * math.log(chance) for chance in chances)


@pytest.mark.parametrize(
    ("vocabulary", "order", "concentration", "context"),
    [(8, 1, 0.2, 64), (3, 2, 0.5, 20), (2, 3, 1.0, 9), (5, 4, 0.1, 4)],
)
def test_the_floor_is_the_mean_loss_of_the_predictive_rule_on_the_validation_sequences(
    vocabulary, order, concentration, context
):
    source = build_source(
        {
            "kind": "synthetic",
            "vocabulary": vocabulary,
            "order": order,
            "concentration": concentration,
            "validation_windows": 150,
        },
        context,
    )
    slow = [
        predictive_loss(sequence, vocabulary, order, concentration)[1:]
        for sequence in sequences(source.validation()).tolist()
    ]
    by_position = np.mean(slow, axis=0)
    assert by_position.shape == (context,)
    np.testing.assert_allclose(source.floor_by_position(), by_position, rtol=1e-12)
    assert source.floor == pytest.approx(np.mean(slow), rel=1e-12)


@pytest.mark.parametrize(("order", "context"), [(1, 3), (2, 4)])
def test_the_floor_of_many_sequences_is_the_language_s_entropy(order, context):
    options = {
        "kind": "synthetic",
        "vocabulary": 2,
        "order": order,
        "concentration": 0.3,
        "validation_windows": 100_000,
    }
    entropies = [entropy_of_prefix(n, 2, order, 0.3) for n in range(1, context + 2)]
    np.testing.assert_allclose(
        build_source(options, context).floor_by_position(), np.diff(entropies), atol=0.008
    )


@pytest.mark.parametrize("urn_bytes", [2**26, 20_000])
@pytest.mark.parametrize(("vocabulary", "order", "length"), [(2, 1, 5), (3, 1, 4), (2, 2, 5)])
def test_every_sequence_is_as_likely_as_with_dirichlet_rows(
    vocabulary, order, length, urn_bytes, monkeypatch
):
    monkeypatch.setattr("normlab.data.synthetic._URN_BYTES", urn_bytes)
    draws = 50_000
    language = MarkovLanguage(vocabulary, order, concentration=0.4)
    drawn = language.draw_sequences(np.random.default_rng(0), draws, length)
    seen = Counter(map(tuple, drawn.tolist()))
    assert drawn.shape == (draws, length)
    for sequence in itertools.product(range(vocabulary), repeat=length):
        chance = chance_of(sequence, vocabulary, order, 0.4)
        spread = math.sqrt(draws * chance * (1 - chance))
        assert abs(seen[sequence] - draws * chance) < 4.5 * spread


def test_a_long_sequence_keeps_to_one_transition_matrix():
    """In the long run, a context's successors repeat as a Dirichlet row does.

    For rows of Dirichlet(α, …, α), the chance that two successors agree is (1 + α) / (1 + Vα).
    """
    vocabulary, concentration, length = 4, 0.25, 400
    language = MarkovLanguage(vocabulary, 1, concentration)
    agreements = []
    for sequence in language.draw_sequences(np.random.default_rng(1), 2000, length):
        after_zero = sequence[1:][sequence[:-1] == 0]
        if len(after_zero) >= 2:
            agreements.append(after_zero[0] == after_zero[-1])
    # Given that 0 comes back at all, its row is not quite Dirichlet: a loose bound is enough to
    # tell it from independent symbols (0.25) and from a fixed successor (1).
    expected = (1 + concentration) / (1 + vocabulary * concentration)
    assert np.mean(agreements) == pytest.approx(expected, abs=0.06)


def test_random_symbols_cost_ln_v_and_are_uniform():
    source = build_source({"kind": "synthetic", "source": "random", "vocabulary": 10}, 64)
    assert source.floor == pytest.approx(math.log(10), rel=1e-12)
    symbols = sequences(source.validation())
    assert source.floor_by_position().shape == (64,)
    counts = np.bincount(symbols.ravel(), minlength=10)
    assert np.abs(counts - symbols.size / 10).max() < 4.5 * math.sqrt(symbols.size * 0.09)


@pytest.mark.parametrize("source", ["markov", "random"])
def test_a_batch_is_a_function_of_seed_and_step(source):
    options = {"kind": "synthetic", "source": source, "batch_size": 4}
    one, other = build_source(options, 16), build_source(options, 16)
    steps = [0, 1, 31, 32, 33, 100, 7]
    forward = {step: one.batch(3, step) for step in steps}
    for step in reversed(steps):
        other.batch(9, step)
        again = other.batch(3, step)
        np.testing.assert_array_equal(again.tokens, forward[step].tokens)
        np.testing.assert_array_equal(again.targets, forward[step].targets)
        assert again.tokens.shape == again.targets.shape == (4, 16)
        assert again.tokens.dtype == again.targets.dtype == np.int64
        np.testing.assert_array_equal(again.tokens[:, 1:], again.targets[:, :-1])
    others = [other.batch(seed, step).tokens for seed in (3, 4) for step in steps]
    assert len({tokens.tobytes() for tokens in others}) == 2 * len(steps)


def test_no_sequence_comes_twice():
    # At a small concentration a few would, by chance: constant ones are then not rare.
    source = build_source({"kind": "synthetic", "batch_size": 32, "concentration": 1.0}, 64)
    rows = sequences([source.batch(seed, step) for seed in range(2) for step in range(70)])
    assert len({row.tobytes() for row in rows}) == 2 * 70 * 32


def test_writing_into_a_batch_changes_no_later_one():
    source = build_source({"kind": "synthetic"}, 16)
    before = source.batch(0, 0).tokens.copy()
    source.batch(0, 0).tokens[:] = 0
    np.testing.assert_array_equal(source.batch(0, 0).tokens, before)
    held_out = source.validation()[0].targets.copy()
    source.validation()[0].targets[:] = 0
    np.testing.assert_array_equal(source.validation()[0].targets, held_out)


def test_validation_is_the_same_for_every_seed_and_never_in_training():
    # As many as training draws at once: the same random numbers would give the same sequences.
    options = {"kind": "synthetic", "validation_windows": 1024, "concentration": 1.0}
    source = build_source(options, 64)
    for seed in range(3):
        source.batch(seed, 0)
    held_out = sequences(source.validation())
    np.testing.assert_array_equal(held_out, sequences(build_source(options, 64).validation()))
    assert held_out.shape == (1024, 65)
    assert [len(batch.tokens) for batch in source.validation()] == [128] * 8
    assert all((batch.targets != IGNORED).all() for batch in source.validation())
    trained = [source.batch(seed, step) for seed in range(3) for step in range(100)]
    assert not {row.tobytes() for row in held_out} & {row.tobytes() for row in sequences(trained)}


def test_a_large_vocabulary_of_second_order_stays_small_in_memory():
    tracemalloc.start()
    source = build_source({"kind": "synthetic", "order": 2, "vocabulary": 64}, 64)
    source.batch(0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert source.floor < math.log(64)


@pytest.mark.parametrize("vocabulary", [2, 26, 70, 1000])
def test_symbols_are_letters(vocabulary):
    source = build_source({"kind": "synthetic", "source": "random", "vocabulary": vocabulary}, 8)
    tokens = source.batch(0, 0).tokens[0].tolist()
    assert source.vocabulary == source.tokenizer.vocabulary == vocabulary
    assert source.tokenizer.encode(source.tokenizer.decode(tokens)) == tokens
    text = source.tokenizer.decode(range(vocabulary))
    assert text.startswith("ab")
    assert text.isprintable()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("order", 9, "data.order=9 needs more symbols than model.context=8 shows"),
        ("order", 6, "data.vocabulary=8 with data.order=6 has too many contexts"),
        ("validation_windows", None, "data.validation_windows=null: the language is endless"),
    ],
)
def test_an_impossible_language_is_refused_in_a_sentence(option, value, said):
    with pytest.raises(ConfigError) as refused:
        build_source({"kind": "synthetic", option: value}, 8)
    assert said in str(refused.value)


def test_a_random_vocabulary_has_a_limit_too():
    with pytest.raises(ConfigError, match=r"data\.vocabulary=40000 is too large"):
        build_source({"kind": "synthetic", "source": "random", "vocabulary": 40_000}, 8)
