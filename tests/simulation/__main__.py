"""`python -m tests.simulation SEEDS FIRST_SEED`."""

import sys

from tests.simulation.run import main

sys.exit(main(sys.argv[1:]))
