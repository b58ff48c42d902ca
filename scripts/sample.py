"""Print text from a run's checkpoint: python scripts/sample.py outputs/<study>/<run>."""

from normlab.door import sample

if __name__ == "__main__":
    sample()
