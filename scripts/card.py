"""A norm's identity card, before it is trained: python scripts/card.py norm=rmsnorm,layernorm."""

from normlab.study.card import main

if __name__ == "__main__":
    main()
