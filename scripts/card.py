"""A norm's identity card, before it is trained: python scripts/card.py norm=rmsnorm,layernorm."""

from normlab.door import card

if __name__ == "__main__":
    card()
