"""A config becomes a run folder, and results."""
