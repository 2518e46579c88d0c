"""`python -m resurge` is the `resurge` command."""

import sys

from resurge.cli import main

if __name__ == "__main__":
    sys.exit(main())
