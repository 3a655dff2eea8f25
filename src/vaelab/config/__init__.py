"""Compose a config from conf/, check it, and build the experiment that it describes."""
