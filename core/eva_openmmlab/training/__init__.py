"""A training run: runner, loops, checkpoints, and how it ends."""
