"""Many runs as one thing: a folder, resumable, by one process or many."""
