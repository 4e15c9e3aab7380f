"""Images and label maps: classes, own data, reading, the order of a run."""
