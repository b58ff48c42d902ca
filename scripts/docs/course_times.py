"""How long the runs of the course take on this machine: every command of its pages, timed.

    python scripts/docs/course_times.py [--only predict]

reads the commands from the pages of the path, runs each once in a clone of this checkout, where
nothing has been trained yet, and prints a table with the seconds that passed and the seconds in
which the machine's processors worked. Run it while nothing else runs: both have all of its work.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "docs" / "learn"
PAGES = (
    *(f"lesson{number}" for number in range(1, 7)),
    "models_of_today",
    "reading_a_claim",
    "leak",
)
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MEASURED = ("python ", "normlab-learn predict ")


def find_commands() -> Iterator[str]:
    """The commands of the pages that measure or train, in the order of the path, each once.

    A check is timed on the solution that comes with the course; a prediction needs a guess.
    """
    predictions = yaml.safe_load((COURSE / "predictions.yaml").read_text(encoding="utf-8"))
    guesses = {entry["id"]: entry.get("range", [1])[0] for entry in predictions}
    lines = [
        # A command of a page may have a comment behind it.
        line.split("   #")[0].strip()
        for page in PAGES
        for block in _BLOCK.findall((COURSE / f"{page}.md").read_text(encoding="utf-8"))
        for line in block.splitlines()
    ]
    for line in dict.fromkeys(lines):
        if line.startswith(_MEASURED):
            yield f"{line} --guess {guesses[line.split()[2]]}" if " predict " in line else line
    for solution in sorted((COURSE / "solutions").iterdir()):
        yield f"normlab-learn check {solution.relative_to(ROOT)}"


def time_command(command: str, folder: Path) -> tuple[int, float, float]:
    """Its exit code, the seconds that passed, and the seconds of work of all cores."""
    arguments = shlex.split(command)
    # The python and normlab-learn of this environment, whatever is first in PATH.
    arguments[0] = str(Path(sys.executable).with_name(arguments[0]))
    # Of the machine: the system counts a child's work only where its parent waits for it, and a
    # study's processes are not the children of the command that starts it.
    before, start = psutil.cpu_times(), time.perf_counter()
    finished = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, psutil.cpu_times()
    work = after.user + after.system - before.user - before.system
    return finished.returncode, seconds, work


def main() -> None:
    """Run each command that `--only` names a part of, and print its row when it has ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="only commands that contain this text")
    only: str = parser.parse_args().only
    commands = [command for command in find_commands() if only in command]
    if not commands:
        sys.exit(f"course_times: no command of the course contains {only!r}.")
    print(f"| command ({os.cpu_count()} cores) | seconds | CPU seconds |\n|---|---:|---:|")
    total = total_cpu = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "normlab"
        # A run that has its result is skipped and takes no time; a clone has none.
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        for command in commands:
            code, seconds, cpu = time_command(command, folder)
            failed = f" (exit code {code})" if code else ""
            print(f"| `{command}`{failed} | {seconds:.0f} | {cpu:.0f} |", flush=True)
            total, total_cpu = total + seconds, total_cpu + cpu
    print(f"| all {len(commands)} | {total:.0f} | {total_cpu:.0f} |")


if __name__ == "__main__":
    main()
