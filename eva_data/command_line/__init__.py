"""Command lines of trainings, evaluations and demos."""
