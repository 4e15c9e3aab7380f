"""Predictions for people: pictures, folders of them, videos and cameras."""
