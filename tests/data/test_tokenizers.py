"""Tokenizers give back the text they were given, also after a journey through JSON."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.data import tokenizer_from_json
from normlab.data.tokenizers import BytePairTokenizer, CharacterTokenizer
from normlab.errors import ConfigError, NormlabError

TEXT = "Whether 'tis nobler in the mind — whether not; naïve café, 日本語 🙂\r\n\n" * 20
BYTE_PAIRS = BytePairTokenizer.learn([TEXT], 300)
any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@given(any_text.filter(bool))
def test_characters_survive_the_round_trip(text):
    tokenizer = tokenizer_from_json(CharacterTokenizer.from_text([text]).to_json())
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert sorted(set(ids)) == list(range(tokenizer.vocabulary))
    assert tokenizer.vocabulary == len(set(text))
    assert tokenizer.decode(range(tokenizer.vocabulary)) == "".join(sorted(set(text)))


@given(any_text.filter(bool))
def test_the_fast_way_to_ids_is_the_slow_way(text):
    tokenizer = CharacterTokenizer.from_text([text])
    assert tokenizer.encode_corpus(text).tolist() == tokenizer.encode(text)


@settings(deadline=None)
@given(any_text)
def test_byte_pairs_encode_any_text_learned_or_not(text):
    tokenizer = tokenizer_from_json(BYTE_PAIRS.to_json())
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids == BYTE_PAIRS.encode(text)
    assert all(0 <= token < tokenizer.vocabulary for token in ids)


def test_byte_pairs_are_learned_and_the_same_each_time():
    assert BYTE_PAIRS.vocabulary == 300
    assert len(BYTE_PAIRS.encode(TEXT)) < 0.7 * len(TEXT.encode())
    assert BytePairTokenizer.learn([TEXT], 300).to_json() == BYTE_PAIRS.to_json()


def test_a_small_text_has_fewer_byte_pairs_than_asked_for():
    assert BytePairTokenizer.learn(["ab ab"], 1000).vocabulary < 270


def test_a_character_without_an_id_is_named():
    with pytest.raises(ConfigError, match=r"holds '!', '\\u20ac', which the vocabulary of 3"):
        CharacterTokenizer("abc").encode("a€b!")


def test_half_a_character_is_refused():
    with pytest.raises(ConfigError, match=r"'\\udc80', which is not a character"):
        BYTE_PAIRS.encode("a\udc80")


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer("abc"), BYTE_PAIRS])
@pytest.mark.parametrize("token", [-1, 300])
def test_a_token_out_of_range_is_refused(tokenizer, token):
    with pytest.raises(ConfigError, match=f"Token {token} is not in the vocabulary"):
        tokenizer.decode([0, token])


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "[]",
        "{}",
        '"characters"',
        '{"kind": "morse", "characters": "ab"}',
        '{"kind": "characters", "characters": "aba"}',
        '{"kind": "characters", "characters": ""}',
        '{"kind": "characters", "characters": 7}',
        '{"kind": "bpe", "model": "{}"}',
        json.dumps({"kind": "bpe", "model": json.loads(BYTE_PAIRS.to_json())["model"][:-90]}),
        CharacterTokenizer("abc").to_json()[:-1],
    ],
)
def test_a_damaged_tokenizer_is_refused_in_a_sentence(damaged):
    with pytest.raises(NormlabError, match="The stored tokenizer is damaged"):
        tokenizer_from_json(damaged)


@pytest.mark.parametrize("vocabulary", [2, 255])
def test_byte_pairs_need_room_for_the_bytes(vocabulary):
    with pytest.raises(ConfigError, match=f"data.vocabulary={vocabulary} has no room for the 256"):
        BytePairTokenizer.learn([TEXT], vocabulary)
