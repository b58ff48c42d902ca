"""The script that measures what states and curves cost, without running it."""

import pytest

from faults.overhead import LOOP, STATE


@pytest.mark.parametrize(("owner", "name"), [LOOP, STATE])
def test_what_the_script_clocks_exists(owner: object, name: str) -> None:
    assert callable(getattr(owner, name))
