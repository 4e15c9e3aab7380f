"""The command of training, and the hooks of a run."""
