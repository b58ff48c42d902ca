"""Write docs/catalogue.md from conf/: python scripts/catalogue.py."""

from run_command import run_command

if __name__ == "__main__":
    run_command("catalogue")
