"""Measure normlab against what a user would pick instead: python scripts/bench.py step."""

from normlab.door import bench

if __name__ == "__main__":
    bench()
