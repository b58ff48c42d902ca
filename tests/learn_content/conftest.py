"""One thread: tests that share a machine would wait for each other's."""

from collections.abc import Iterator

import pytest

from normlab.training.hardware import single_thread


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield
