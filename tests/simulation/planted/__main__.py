"""`python -m tests.simulation.planted [MOST_SEEDS [NAME…]]`."""

import sys

from tests.simulation.planted.hunt import main

sys.exit(main(sys.argv[1:]))
