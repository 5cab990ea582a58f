"""`python -m minigan.gradcheck`: every operation of the engine, or a function of yours."""

import sys

from minigan.specs.cli import main

if __name__ == "__main__":
    sys.exit(main())
