"""Corpora, synthetic languages and their batches, each a pure function of (seed, step)."""

from collections.abc import Mapping
from typing import Any

from normlab.data.sources import IGNORED, Batch, Source, Tokenizer, unigram_loss
from normlab.data.tokenizers import tokenizer_from_json

__all__ = [
    "IGNORED",
    "Batch",
    "Source",
    "Tokenizer",
    "build_source",
    "tokenizer_from_json",
    "unigram_loss",
]


def build_source(options: Mapping[str, Any], context: int) -> Source:
    """Open the data that `options` names, in windows of `context` tokens.

    Args:
        options: `kind` (synthetic, shakespeare or text) and that kind's own keys, as in conf/data;
            a key left out has its default. Their types and ranges have been checked
            (`config.validation`).
        context: T, the length of a batch's sequences, in tokens.

    Raises:
        ConfigError: values that do not fit together, or a corpus too short for `context`.
        NormlabError: a file that is missing, damaged or not text, a download or a cache that fails.
    """
    arguments = dict(options)
    kind = arguments.pop("kind")
    # Imported late: urllib and tokenizers take as long as the start of a short sweep.
    if kind == "synthetic":
        from normlab.data.synthetic import SyntheticSource

        return SyntheticSource(context=context, **arguments)
    if kind == "shakespeare":
        from normlab.data.shakespeare import open_shakespeare

        return open_shakespeare(context=context, **arguments)
    from normlab.data.text import open_text

    return open_text(context=context, **arguments)
