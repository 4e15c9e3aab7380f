"""One training run on DeepSpeed's engine: config, data order, loop, logs, checkpoints.

Shared by the projects that train with a loop of our own; knows no model. Heavy packages are
imported by the modules that need them, not here.
"""
