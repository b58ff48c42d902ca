"""Output that fails fails no run; a command whose product is its text says that it is lost."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from normlab.archive.record import read_result
from tiny_run import TINY

ROOT = Path(__file__).resolve().parents[1]
FULL = Path("/dev/full")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def called(
    *command: str, stdout: IO[Any] | int = subprocess.PIPE, **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def in_shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    words = " ".join([*TINY, f"output_dir={folder}"])
    text = command.replace("TRAIN", f"{sys.executable} train.py {words}")
    return subprocess.run(
        ["bash", "-c", text], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("TRAIN >/dev/full 2>&1", marks=needs_full),
        pytest.param("TRAIN >&- 2>&- <&-", marks=pytest.mark.slow),
        pytest.param("TRAIN -m seed=0,1 >&-", marks=pytest.mark.slow),
        pytest.param("TRAIN | head -1; exit ${PIPESTATUS[0]}", marks=pytest.mark.slow),
        pytest.param("PYTHONIOENCODING=ascii TRAIN", marks=pytest.mark.slow),
    ],
)
def test_output_that_fails_fails_no_run(command: str, tmp_path: Path) -> None:
    done = in_shell(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    records = [read_result(path.parent) for path in tmp_path.glob("*/*/run.json")]
    assert records
    assert all(record is not None and record.state == "finished" for record in records)
    (report,) = tmp_path.glob("*/report.html")
    assert report.stat().st_size > 10_000


@needs_full
@pytest.mark.parametrize(
    "command", [["train.py", "--cfg", "job"], ["scripts/plot.py", "--help"]], ids=" ".join
)
def test_a_text_that_cannot_be_written_is_one_sentence(command: list[str]) -> None:
    with FULL.open("w") as full:
        done = called(*command, stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "standard output" in done.stderr


def test_a_reader_that_has_left_ends_a_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = called("scripts/plot.py", "--help", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_an_encoding_lacks_is_the_nearest_that_it_has() -> None:
    code = "from normlab import output; output.secure_streams(); print('a \\xb7 b \\xb1 c')"
    assert called("-c", code, **ASCII).stdout == "a | b +- c\n"
    assert called("-c", code, PYTHONIOENCODING="ascii").stdout == "a | b +- c\n"


def test_a_closed_descriptor_is_not_given_to_the_next_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "import os; os.close(1); from normlab import output; output.secure_streams(); "
        f"file = open({str(path)!r}, 'w'); os.write(1, b'lost'); file.write('there')"
    )
    assert called("-c", code).returncode == 0
    assert path.read_text() == "there"


def test_ascii_gets_the_nearest_signs(tmp_path: Path) -> None:
    code = (
        "from normlab import output; output.secure_streams(); "
        "print('1.5 ±0.1 · é × 2 − σ ≤ ∂x … ☃')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout == "1.5 +-0.1 | e x 2 - sigma <= dx ... ?\n"
