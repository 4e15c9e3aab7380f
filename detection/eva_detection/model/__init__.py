"""The detector's parts: backbone, heads, suppression of duplicates."""
