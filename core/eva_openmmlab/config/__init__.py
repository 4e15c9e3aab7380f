"""Configs in files, and what a command line changes in them."""
