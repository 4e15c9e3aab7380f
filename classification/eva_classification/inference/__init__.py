"""Predictions for people: images, folders of them, videos and cameras."""
