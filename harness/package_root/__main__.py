"""`python -m mapflow`: the command line, for torchrun and accelerate."""

import sys

from mapflow.harness.cli.entry import mapflow

if __name__ == "__main__":
    sys.exit(mapflow())
