"""Command lines: a recipe and its values, shared options, and how errors end a program."""
