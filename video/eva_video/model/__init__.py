"""The classifier of clips, its weights and its features."""
