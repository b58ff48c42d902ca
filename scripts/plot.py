"""Redraw a study: python scripts/plot.py outputs/<study>."""

from run_command import run_command

if __name__ == "__main__":
    run_command("plot")
