"""A trained model for others: in the files of other libraries, in a browser, on a hub."""
