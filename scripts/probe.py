"""Models at initialisation, by depth: python scripts/probe.py norm=rmsnorm,none model.depth=4,8."""

from normlab.door import probe

if __name__ == "__main__":
    probe()
