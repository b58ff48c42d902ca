"""A contender in a process of its own answers its turns, or says in a sentence why it cannot."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from normlab.bench.process import Process, installed
from normlab.errors import NormlabError

TESTS = Path(__file__).resolve().parents[1]
Start = Callable[..., Process]


@pytest.fixture
def process() -> Iterator[Start]:
    started: list[Process] = []
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))

    def start(function: str, **more: Any) -> Process:
        made = Process(function, f"benched:{function}", environment={"PYTHONPATH": path}, **more)
        started.append(made)
        made.start()
        return made

    yield start
    for one in started:
        one.stop()


def test_it_answers_every_turn_from_one_other_process(process: Start) -> None:
    contender = process("doubling", arguments={"factor": 3.0}, turn={"steps": 4})
    first, second = contender.block(), contender.ask({"steps": 5})
    assert (first["twice"], second["twice"]) == (24.0, 30.0)
    assert first["pid"] == second["pid"] != os.getpid()


def test_it_is_gone_after_stop(process: Start) -> None:
    contender = process("doubling", arguments={"factor": 1.0}, turn={"steps": 1})
    pid = int(contender.block()["pid"])
    contender.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_it_refuses_is_said_at_the_start(process: Start) -> None:
    with pytest.raises(NormlabError, match="the contender refusing failed: it will not"):
        process("refusing", arguments={})


def test_what_breaks_is_one_line(process: Start) -> None:
    contender = process("breaking", arguments={})
    with pytest.raises(NormlabError, match="breaking failed: ValueError: two lines"):
        contender.block()


def test_one_that_dies_leaves_its_code_and_its_last_words(process: Start) -> None:
    contender = process("dying", arguments={})
    with pytest.raises(NormlabError, match=r"dying failed: it ended with code 7 \(last words\)"):
        contender.block()


def test_it_gets_its_number_of_threads(process: Start) -> None:
    contender = process("threads", arguments={}, threads=1)
    assert contender.block() == {"threads": 1.0}


def test_a_package_is_found_without_being_imported() -> None:
    assert installed("torch")
    assert not installed("no_such_package")
