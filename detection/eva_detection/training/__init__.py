"""A training run: its steps, hooks, checkpoints, processes, and how it ends."""
