"""Redraw a study: python scripts/plot.py outputs/<study>."""

from normlab.analysis.plot import main

if __name__ == "__main__":
    main()
