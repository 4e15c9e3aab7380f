"""A run: optimizer and schedule, and mmengine's loops, hooks and logging."""

_base_ = ["schedule.py", "runtime.py"]
