"""Data sets, pipelines and own data."""
