"""Multi-view evaluation and checks of frozen features."""
