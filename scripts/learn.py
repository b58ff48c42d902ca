"""The teaching path: lessons, predictions, quiz, exercises: python scripts/learn.py."""

from run_command import run_command

if __name__ == "__main__":
    run_command("learn")
