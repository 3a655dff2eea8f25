"""What a trained run shows: evaluated, loaded, drawn."""
