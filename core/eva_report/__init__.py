"""What a run shows: its page, curves, annotated images, and lines on the terminal."""
