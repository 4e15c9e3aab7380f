"""Checks of data: what they found, pictures and manifests, and the command that runs one."""
