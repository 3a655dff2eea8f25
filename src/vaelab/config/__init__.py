"""conf/: composed, checked, made into an experiment."""
