"""Detectors in Python, and the demo."""
