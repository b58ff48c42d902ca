"""Redraw a study: python scripts/plot.py outputs/<study>."""

import sys

from normlab.analysis.plot import main

if __name__ == "__main__":
    sys.exit(main())
