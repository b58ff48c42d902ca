"""A text of the user's own: any UTF-8 files, by characters or by byte pairs."""

from normlab.data.files import corpus_files
from normlab.data.options import one_of
from normlab.data.token_file import tokenized
from normlab.data.windows import CorpusSource, check_ranges
from normlab.errors import ConfigError


def open_text(
    context: int,
    batch_size: int = 12,
    path: str | None = None,
    tokens: str = "characters",
    vocabulary: int = 1024,
    validation_fraction: float = 0.1,
    validation_windows: int | None = None,
) -> CorpusSource:
    """The files that `path` (a file, a folder or a glob) means, in windows of `context` tokens.

    They may be larger than memory: their token ids are kept in the user's cache and mapped.

    Raises:
        ConfigError: a value out of range, no path, too little text for `context`, one symbol only.
        NormlabError: a file that is missing or no plain UTF-8 text, a cache that cannot be written.
    """
    if not path:
        raise ConfigError("data=text needs data.path=…: give a file, a folder or a glob.")
    check_ranges(batch_size, validation_fraction, validation_windows)
    one_of("data.tokens", tokens, ("characters", "bpe"))
    return CorpusSource(
        tokenized(corpus_files(path), tokens, vocabulary),
        f"data.path={path}",
        context=context,
        batch_size=batch_size,
        validation_fraction=validation_fraction,
        validation_windows=validation_windows,
    )
