"""A question or a mistake is answered at once: nothing heavy is imported for it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SPY = """
import sys
sys.argv = ["train.py", *{arguments!r}]
try:
    import runpy
    runpy.run_path("train.py", run_name="__main__")
except SystemExit:
    pass
heavy = {{"torch", "pytorch_lightning", "matplotlib", "scipy"}} & set(sys.modules)
print("HEAVY", sorted(heavy))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--cfg", "job"], ["norm=foo"], ["model.heads=3"]], ids=str
)
def test_an_answer_that_needs_no_run_imports_no_torch(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPY.format(arguments=arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "HEAVY []" in done.stdout
