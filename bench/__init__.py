"""Side-by-side measurements with peers, each in one run; text results go to bench/results/."""
