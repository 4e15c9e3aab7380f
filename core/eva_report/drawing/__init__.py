"""Annotated images."""
