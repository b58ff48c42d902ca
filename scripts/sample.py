"""Print text from a run's checkpoint: python scripts/sample.py outputs/<study>/<run>."""

from normlab.training.sample import main

if __name__ == "__main__":
    main()
