"""`python -m mapflow`: the command line, for torchrun and accelerate."""

import sys

from mapflow.harness.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
