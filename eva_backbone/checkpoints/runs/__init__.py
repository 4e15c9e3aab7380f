"""Output folders of runs of all trainers, and the files of their weights."""
