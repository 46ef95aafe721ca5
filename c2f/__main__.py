"""`python -m c2f` is the command `c2f`."""

import sys

from c2f.cli import main

if __name__ == "__main__":
    sys.exit(main())
