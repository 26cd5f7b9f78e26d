"""The pure core: frozen values in, frozen values out; standard library only, no I/O, no clock, no randomness."""
