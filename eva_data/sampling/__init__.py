"""Random numbers of samples by seed and place."""
