"""A norm's identity card, before it is trained: python scripts/card.py norm=rmsnorm,layernorm."""

from run_command import run_command

if __name__ == "__main__":
    run_command("card")
