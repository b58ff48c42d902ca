"""Contenders take turns, and whatever happens nothing of them is left."""

from collections.abc import Callable

import pytest

from benched import Fake
from normlab.bench.contender import interleave
from normlab.errors import NormlabError


def test_contenders_take_turns_round_after_round() -> None:
    diary: list[str] = []
    interleave([Fake(name, diary) for name in "ABC"], rounds=3, warm_up=1, rest=0)
    blocks = [word for word in diary if len(word) == 1]
    assert blocks == list("ABC" * 4)


def test_all_have_started_before_the_first_is_measured_and_stop_after_the_last() -> None:
    diary: list[str] = []
    interleave([Fake(name, diary) for name in "AB"], rounds=1, warm_up=0, rest=0)
    assert sorted(diary[:2]) == ["start A", "start B"]
    assert diary[2:4] == ["A", "B"]
    assert sorted(diary[4:]) == ["stop A", "stop B"]


def test_warm_up_is_measured_and_not_kept() -> None:
    contender = Fake("A", [], cost=lambda block: 100.0 if block <= 2 else float(block))
    samples = interleave([contender], rounds=3, warm_up=2, rest=0)
    assert samples == {"A": [{"ms": 3.0}, {"ms": 4.0}, {"ms": 5.0}]}


def test_nothing_runs_before_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    diary: list[str] = []
    rests: list[float] = []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        diary.append("rest")

    monkeypatch.setattr("time.sleep", rest)
    interleave([Fake(name, diary) for name in "AB"], rounds=1, warm_up=0, rest=0.05)
    assert diary[2:6] == ["rest", "A", "rest", "B"]
    assert rests == [0.05, 0.05]


def _falls(when: int) -> Callable[[int], float]:
    def cost(block: int) -> float:
        if block == when:
            raise NormlabError("fell")
        return 1.0

    return cost


def test_when_one_falls_all_are_stopped() -> None:
    diary: list[str] = []
    contenders = [Fake("A", diary), Fake("B", diary, cost=_falls(2)), Fake("C", diary)]
    with pytest.raises(NormlabError, match="fell"):
        interleave(contenders, rounds=3, warm_up=0, rest=0)
    assert sorted(diary[-3:]) == ["stop A", "stop B", "stop C"]


def test_the_watcher_is_told_the_round_and_the_contender() -> None:
    told: list[str] = []
    contenders = [Fake(name, []) for name in "AB"]
    interleave(contenders, rounds=1, warm_up=1, rest=0, progress=told.append)
    assert told[1:] == ["warm-up: A", "warm-up: B", "round 1 of 1: A", "round 1 of 1: B"]
