"""Predictions for people: files, folders and long videos."""
