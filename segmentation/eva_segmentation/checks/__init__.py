"""Checks of images and label maps for semantic segmentation."""
