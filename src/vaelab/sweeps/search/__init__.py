"""Sweeps that choose their next settings by the results so far."""
