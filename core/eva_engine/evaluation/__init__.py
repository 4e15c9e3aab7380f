"""Scores of a model: counting over processes, rules of what is correct, tables and images."""
