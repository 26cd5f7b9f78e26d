"""The simulation: every agent's real loop on a fake world, faults drawn from a seed, rules checked after every step."""
