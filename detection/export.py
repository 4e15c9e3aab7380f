"""Write a detector's backbone for other programs: `python detection/export.py --help`."""

from eva_detection.command_line import export
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(export)()
