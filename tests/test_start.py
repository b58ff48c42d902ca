"""A question or a mistake is answered at once: nothing heavy is imported for it."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tiny_run import TINY

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


def said_by(code: str) -> str:
    """What Python prints that runs this in a process of its own, where tests can be imported."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--cfg", "job"], ["norm=foo"], ["model.heads=3"]], ids=str
)
def test_an_answer_that_needs_no_run_imports_no_torch(arguments: list[str]) -> None:
    assert "HEAVY []" in said_by(SPY.format(arguments=arguments))


def test_who_shows_a_study_imports_no_torch(tmp_path: Path) -> None:
    arguments = ["-m", "seed=0,1", *TINY, f"output_dir={tmp_path}"]
    said = said_by(SPY.format(arguments=arguments))
    assert "2 runs" in said
    # The figures at the end need these.
    assert set(ast.literal_eval(said.rpartition("HEAVY ")[2])) <= {"matplotlib", "scipy"}


def test_a_process_that_trains_begins_with_all_that_it_needs_frozen() -> None:
    """It is imported already, and never looked through for garbage."""
    # In a process of its own: this one may have begun a fork server for other tests.
    code = (
        "from normlab.study import workers; from process_imports import list_heavy_modules; "
        "print(workers.call_in_process(list_heavy_modules))"
    )
    modules, collects, is_frozen = ast.literal_eval(said_by(code))
    assert modules == ["torch", "pytorch_lightning", "normlab.training.run"]
    assert collects
    assert is_frozen


def test_a_mistake_leaves_nothing_behind_that_imports(tmp_path: Path) -> None:
    mark = {**os.environ, "NORMLAB_TEST": str(tmp_path)}
    command = [sys.executable, "train.py", "-m", "norm=rmsnorm,foo", f"output_dir={tmp_path}"]
    said = tmp_path / "said"
    with said.open("w") as err:  # a pipe would wait for whoever holds its other end
        done = subprocess.run(command, cwd=ROOT, env=mark, stderr=err, check=False)
    assert done.returncode == 2
    assert "norm=foo is not an option" in said.read_text()
    time.sleep(0.2)
    left = [p for p in psutil.process_iter(["environ"]) if p.info["environ"]]
    assert not [p for p in left if p.info["environ"].get("NORMLAB_TEST") == str(tmp_path)]
