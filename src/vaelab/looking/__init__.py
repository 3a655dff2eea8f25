"""Load, evaluate, score and draw trained runs."""
