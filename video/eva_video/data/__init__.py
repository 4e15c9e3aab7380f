"""Clips of videos: sampling, augmentation, views."""
