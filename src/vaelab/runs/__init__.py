"""Train a config into a run folder; resume, extend and reproduce it."""
