"""What the commands leave behind is what is stored: names exactly, numbers to 1e-4 of their size.

After a change that is meant: python tests/golden/test_golden.py writes the files anew.
"""

import gzip
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from golden.behaviour import COMMANDS, execute, read_behaviour

ROOT = Path(__file__).parents[2]
STORED = Path(__file__).parent / "stored"
# compare_with_commit.py has one command more.
FAST, SLOW = ("study",), ("card", "rates", "probe", "experiment", "claim")
# Processors add in other orders; rates up to 1e-3, at most 50 steps.
TOLERANCE = {"rel_tol": 1e-4, "abs_tol": 1e-5}
# The largest error of a rounded sum jumps with the order of its terms.
ROUNDED = {"rel_tol": 0.3, "abs_tol": 1e-5}


def differs(before: Any, now: Any, name: str = "") -> bool:
    """Whether two values differ by more than processors do."""
    if isinstance(before, list) and isinstance(now, list):
        return len(before) != len(now) or any(map(differs, before, now))
    # A cell of a table is the number that it is sorted by, and what it shows.
    if isinstance(before, str) and isinstance(now, str) and " " in before:
        return differs(before.split(), now.split())
    try:
        numbers = float(before), float(now)
    except (TypeError, ValueError):
        return bool(before != now)
    close = ROUNDED if " rounding " in name or " extremes " in name else TOLERANCE
    return not (math.isclose(*numbers, **close) or all(map(math.isnan, numbers)))


def read_stored(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


def check(name: str, folder: Path) -> None:
    execute(ROOT, COMMANDS[name], folder)
    now = json.loads(json.dumps(read_behaviour(folder)))
    before = read_stored(STORED / f"{name}.json.gz")
    assert now.keys() == before.keys()
    assert {k: (before[k], now[k]) for k in now if differs(before[k], now[k], k)} == {}


@pytest.mark.parametrize("name", FAST)
def test_a_command_leaves_what_it_left(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_long_command_leaves_what_it_left(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


if __name__ == "__main__":
    for name in (*FAST, *SLOW):
        with tempfile.TemporaryDirectory() as folder:
            execute(ROOT, COMMANDS[name], Path(folder))
            text = json.dumps(read_behaviour(Path(folder)), indent=0)
            STORED.mkdir(exist_ok=True)
            (STORED / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
