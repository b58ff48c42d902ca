"""The user's cache folder, and what to say when it cannot be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from normlab.errors import NormlabError


def cache_folder() -> Path:
    """Where downloads and tokenised corpora are kept between runs; it need not exist yet."""
    return user_cache_path("normlab")


@contextmanager
def writing_to_cache() -> Iterator[None]:
    """Turn the disk's refusal into one sentence.

    Raises:
        NormlabError: the body raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise NormlabError(
            f"The cache folder {cache_folder()} cannot be written ({error.strerror or error}): "
            "make room or give access there, or set XDG_CACHE_HOME to a folder that can be."
        ) from error
