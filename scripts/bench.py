"""Measure normlab against what a user would pick instead: python scripts/bench.py step."""

import sys

try:
    from normlab.cli import bench
except ModuleNotFoundError as missing:
    sys.exit(
        f"normlab: {missing.name} is not installed for {sys.executable}; run `make demo` once, "
        "then this command with .venv/bin/python in place of python."
    )

if __name__ == "__main__":
    bench()
