"""Put published claims to the test: python scripts/claims.py claim=rmsnorm_parity budget=quick."""

from run_command import run_command

if __name__ == "__main__":
    run_command("claims")
