"""Compare what this working tree and a commit leave behind, to the bit, on one machine.

    python tests/golden/compare_with_commit.py [--base COMMIT] [--only study,card]

Every command of behaviour.py is executed with the sources of both, one after the other, each in a
folder of its own. Processors differ in the last bits, so that no bits are stored: `test_golden.py`
holds what is, to 1e-5. Exit code 1 where a value differs.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from golden.behaviour import COMMANDS, execute, read_behaviour, repeat_first_run  # noqa: E402

# The last commit before the sources were rearranged.
BASE = "ef6e7b9"

# Differences that are meant: a pattern of names, and why. Everything else is a mistake.
EXCEPTIONS: dict[str, str] = {
    r"claims-\w+\.json judged \d+ (source|differs)$": "the MiniMind notes are named",
    r"(run\.json config |config\.yaml.* |config\.)(margin|target)$": "new, at neutral values",
    r"runs\.csv .*(target|steps_to_target|loss_spikes)$": "new columns",
    r"(run\.json final |runs\.csv .*final\.|final/)(selection|test)_loss": "new numbers",
    r"report\.html .*convergence": "a new table",
    r"report\.html .*comparisons row \d+$": "intervals hold for all arms together; detectable",
}


def main() -> None:
    """Compare, print every difference, and leave with 1 where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default=BASE, help="commit to compare with")
    parser.add_argument("--only", default=",".join(COMMANDS), help="names of commands")
    options = parser.parse_args()
    differences = 0
    with tempfile.TemporaryDirectory(prefix="normlab-compare-") as temporary:
        base = Path(temporary) / "base"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(base), options.base], check=True)
        try:
            for name in options.only.split(","):
                differences += compare(name, base, Path(temporary))
        finally:
            subprocess.run([*git, "remove", "--force", str(base)], check=True)
    print(f"{differences} differences" if differences else "equal to the bit")
    sys.exit(differences > 0)


def compare(name: str, base: Path, temporary: Path) -> int:
    """Execute a command with both checkouts; returns the number of differing values."""
    results = []
    for side, root in (("base", base), ("tree", ROOT)):
        folder = temporary / side / name.replace(" ", "_")
        folder.mkdir(parents=True)
        execute(root, COMMANDS[name], folder)
        if name == "study":
            repeat_first_run(root, folder)
        results.append(read_behaviour(folder))
    before, now = results
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not any(re.search(e, key) for e in EXCEPTIONS)
    ]
    for key in changed[:20]:
        print(f"{name}: {key}\n  base {before.get(key)!r:.300}\n  tree {now.get(key)!r:.300}")
    print(f"{name}: {len(before)} values, {len(changed)} differ", flush=True)
    return len(changed)


if __name__ == "__main__":
    main()
