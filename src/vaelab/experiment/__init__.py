"""A config -> a run folder -> results."""
