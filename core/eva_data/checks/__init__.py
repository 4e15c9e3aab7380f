"""Checks of data before a training: what they find; `eva_command.verify` runs them."""
