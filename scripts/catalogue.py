"""Write docs/catalogue.md from conf/: python scripts/catalogue.py."""

from normlab.door import catalogue

if __name__ == "__main__":
    catalogue()
