"""Print text from a run's checkpoint: python scripts/sample.py outputs/<study>/<run>."""

from run_command import run_command

if __name__ == "__main__":
    run_command("sample")
