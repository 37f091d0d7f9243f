"""The memory and the time of a run, before it."""
