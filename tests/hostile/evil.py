"""Leaves a mark when it is imported."""

from pathlib import Path

Path("PWNED").write_text("this file was executed\n")
