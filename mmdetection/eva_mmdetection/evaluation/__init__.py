"""The command of evaluation, and the metrics."""
