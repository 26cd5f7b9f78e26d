"""Bugs planted into the real code, one small patch each, to show that the checkers bite: `make sim-bugs`."""
