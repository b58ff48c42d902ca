"""Put published claims to the test: python scripts/claims.py claim=rmsnorm_parity budget=quick."""

from normlab.door import claims

if __name__ == "__main__":
    claims()
