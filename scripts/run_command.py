"""What each command of this folder is: a function of `normlab.cli`, by its name."""

import sys


def run_command(name: str) -> None:
    """Import the commands and call one; a package that is missing is a sentence."""
    try:
        from normlab import cli
    except ModuleNotFoundError as missing:
        sys.exit(
            f"normlab: {missing.name} is not installed for {sys.executable}; run `make demo` once, "
            "then this command with .venv/bin/python in place of python."
        )
    except KeyboardInterrupt:  # before normlab.cli, which handles signals, was there
        sys.stderr.write("stopped\n")
        sys.exit(130)
    getattr(cli, name)()
