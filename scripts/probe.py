"""Models at initialization, by depth: python scripts/probe.py norm=rmsnorm,none model.depth=4,8."""

from run_command import run_command

if __name__ == "__main__":
    run_command("probe")
