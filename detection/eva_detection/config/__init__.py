"""Configs of a detector: parts of recipes, files of values, checks before a run."""
