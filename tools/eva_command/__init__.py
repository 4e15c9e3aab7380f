"""The command `eva`: everything that the toolkit does, from one table.

It stands above all projects and imports one only when a command of it is called; nothing imports
this package. `python -m eva_command` is the same command.
"""
