"""Videos: reading chosen frames or all of them, and writing."""
