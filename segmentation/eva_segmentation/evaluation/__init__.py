"""Scores of a segmentor, and the maps it predicts."""
