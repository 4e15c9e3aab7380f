"""What a run leaves in its output folder, and how the next one continues from it."""
