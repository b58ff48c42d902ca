"""Write docs/catalogue.md from conf/: python scripts/catalogue.py."""

from normlab.study.catalogue import main

if __name__ == "__main__":
    main()
