"""Processes that load data, mixed batches and their loss."""
