"""Redraw a study: python scripts/plot.py outputs/<study>."""

from normlab.door import plot

if __name__ == "__main__":
    plot()
