"""The simulation: the real loop of every agent on a fake world, faults drawn from a seed, invariants after every step."""
