"""Scores of a model: counting over processes, rules of what is right, tables and pictures."""
