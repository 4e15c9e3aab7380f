"""What demos say about their predictions."""
