"""Text to token ids and back: one id a character, or byte-level BPE learned from the corpus."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normlab.data.sources import Tokenizer
from normlab.errors import ConfigError, NormlabError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Model

_CODE_POINTS = 0x110000
_SMALLEST_BPE = 256
_PIECE = 2**16
_LATIN_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def build_alphabet(count: int) -> str:
    """`count` different characters: a, b, c …, then those from U+4E00 on."""
    return _LATIN_ALPHABET[:count] + "".join(
        chr(0x4E00 + i) for i in range(count - len(_LATIN_ALPHABET))
    )


class CharacterTokenizer:
    """One id a character: the character's place in `characters`."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.vocabulary = len(characters)
        self._ids = {character: i for i, character in enumerate(characters)}
        self._id_of_code: NDArray[np.uint32] | None = None

    @classmethod
    def from_text(cls, chunks: Iterable[str]) -> "CharacterTokenizer":
        """The tokenizer of all characters in `chunks`, sorted by code point."""
        seen = np.zeros(_CODE_POINTS, dtype=bool)
        for chunk in chunks:
            seen[_code_points(chunk)] = True
        return cls("".join(map(chr, np.flatnonzero(seen))))

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; ConfigError names the characters that are not in the vocabulary."""
        unknown = sorted(set(text) - self._ids.keys())
        if unknown:
            raise ConfigError(
                f"The text holds {', '.join(map(ascii, unknown[:10]))}, which the vocabulary of "
                f"{self.vocabulary} characters lacks; it has {ascii(self.characters[:100])[1:-1]}."
            )
        return [self._ids[character] for character in text]

    def encode_corpus(self, text: str) -> NDArray[np.uint32]:
        """The ids of a corpus that the tokenizer was made from (`from_text`), (len(text),)."""
        if self._id_of_code is None:
            self._id_of_code = np.zeros(_CODE_POINTS, dtype=np.uint32)
            self._id_of_code[_code_points(self.characters)] = np.arange(self.vocabulary)
        return self._id_of_code[_code_points(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; ConfigError where one is not in the vocabulary."""
        _check_ids(tokens, self.vocabulary)
        return "".join(self.characters[token] for token in tokens)

    def to_json(self) -> str:
        """Everything that `tokenizer_from_json` needs to rebuild it."""
        return json.dumps({"kind": "characters", "characters": self.characters})


class BytePairTokenizer:
    """Byte-level byte-pair encoding (1508.07909, over bytes as in GPT-2): encodes any text."""

    def __init__(self, model: "Model") -> None:
        self._model = model
        self.vocabulary: int = model.get_vocab_size()

    @classmethod
    def learn(cls, chunks: Iterable[str], vocabulary: int) -> "BytePairTokenizer":
        """Learn up to `vocabulary` tokens from `chunks`; the same text gives the same tokens.

        Raises:
            ConfigError: `vocabulary` has no room for the 256 bytes.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if vocabulary < _SMALLEST_BPE:
            raise ConfigError(
                f"data.vocabulary={vocabulary} has no room for the {_SMALLEST_BPE} bytes that "
                f"data.tokens=bpe starts from: give {_SMALLEST_BPE} or more."
            )
        model = Tokenizer(models.BPE())
        # A space before every piece would be part of what is decoded.
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            # All 256 bytes, also those that the text lacks: any other text can be encoded too.
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[],
            show_progress=False,
        )
        model.train_from_iterator(
            (piece for chunk in chunks for piece in _split_text(chunk)), trainer
        )
        return cls(model)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; ConfigError where it holds half a character (a lone surrogate)."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            surrogate = ascii(text[error.start])
            raise ConfigError(
                f"The text holds {surrogate}, which is not a character: leave it out."
            ) from error
        return list(self._model.encode(text).ids)

    def encode_corpus(self, text: str) -> NDArray[np.uint32]:
        """The ids of a long text, (tokens,): cut into pieces that all cores work on."""
        encodings = self._model.encode_batch_fast(list(_split_text(text)))
        return np.concatenate([np.array(encoding.ids, dtype=np.uint32) for encoding in encodings])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; ConfigError where one is not in the vocabulary."""
        _check_ids(tokens, self.vocabulary)
        return str(self._model.decode(list(tokens), skip_special_tokens=False))

    def to_json(self) -> str:
        """Everything that `tokenizer_from_json` needs to rebuild it."""
        return json.dumps({"kind": "bpe", "model": self._model.to_str()})


def tokenizer_from_json(text: str) -> Tokenizer:
    """Rebuild the tokenizer that `to_json` described. Raises NormlabError."""
    try:
        return _rebuild_tokenizer(json.loads(text))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise NormlabError(
            f"The stored tokenizer is damaged ({error}): take it from another copy of the run."
        ) from error


def _rebuild_tokenizer(stored: dict[str, str]) -> Tokenizer:
    if stored["kind"] == "characters":
        characters = stored["characters"]
        if not isinstance(characters, str):
            raise ValueError("its characters are not a text")
        if not characters or len(set(characters)) != len(characters):
            raise ValueError("its characters are none or not distinct")
        return CharacterTokenizer(characters)
    if stored["kind"] == "bpe":
        from tokenizers import Tokenizer as Model

        _check_bpe(json.loads(stored["model"]))
        return BytePairTokenizer(Model.from_str(stored["model"]))
    raise ValueError(f"its kind {stored['kind']!r} is neither 'characters' nor 'bpe'")


def _check_bpe(model: dict[str, Any]) -> None:
    """Hold a stored model to the parts that ours has: others could pad, or match patterns, forever.

    Raises:
        ValueError: it has another part, or its ids are not 0, 1, 2 ….
    """
    for part in ("truncation", "padding", "normalizer", "post_processor", "added_tokens"):
        if model.get(part):
            raise ValueError(f"it has a {part}")
    for part in ("pre_tokenizer", "decoder"):
        if (model.get(part) or {}).get("type") != "ByteLevel":
            raise ValueError(f"its {part} is not by bytes")
    if sorted(model["model"]["vocab"].values()) != list(range(len(model["model"]["vocab"]))):
        raise ValueError("its ids are not 0, 1, 2 …")


def _code_points(text: str) -> NDArray[np.uint32]:
    # UTF-32 has one number for each character, which numpy reads without a loop.
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _split_text(text: str) -> Iterator[str]:
    return (text[first : first + _PIECE] for first in range(0, len(text), _PIECE))


def _check_ids(tokens: Sequence[int], vocabulary: int) -> None:
    unknown = [token for token in tokens if not 0 <= token < vocabulary]
    if unknown:
        raise ConfigError(
            f"Token {unknown[0]} is not in the vocabulary: ids go from 0 to {vocabulary - 1}."
        )
