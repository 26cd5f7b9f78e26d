"""The shell that owns all effects: clock, observing, the loop, the journal."""
