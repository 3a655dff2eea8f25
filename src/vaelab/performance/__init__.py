"""What is there for speed alone, so that the model's path stays plain."""
