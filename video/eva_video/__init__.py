"""Action recognition in videos with EVA (paper section 2.3.2)."""
