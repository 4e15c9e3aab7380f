"""A trained detector at work: prediction, the demo, test-time augmentation, export."""
