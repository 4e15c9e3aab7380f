"""Outputs of programs: their folders, and files for other programs."""
