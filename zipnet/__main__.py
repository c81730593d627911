"""``python -m zipnet`` is ``zipnet``."""

import sys

from zipnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
