"""The frozen networks whose features are predicted."""
