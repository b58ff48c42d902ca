"""Models at initialization, by depth: python scripts/probe.py norm=rmsnorm,none model.depth=4,8."""

import sys

try:
    from normlab.cli import probe
except ModuleNotFoundError as missing:
    sys.exit(
        f"normlab: {missing.name} is not installed for {sys.executable}; run `make demo` once, "
        "then this command with .venv/bin/python in place of python."
    )
except KeyboardInterrupt:  # before normlab.cli, which handles signals, was there
    sys.stderr.write("stopped\n")
    sys.exit(130)

if __name__ == "__main__":
    probe()
