"""Training and test data of a detector: annotation files, data sets by name, the order of a run."""
