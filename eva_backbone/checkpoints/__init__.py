"""Weights in files: found by name, verified, read safely, mapped, resampled, converted."""
