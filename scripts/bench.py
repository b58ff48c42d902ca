"""Measure normlab against what a user would pick instead: python scripts/bench.py step."""

from normlab.bench.main import main

if __name__ == "__main__":
    main()
