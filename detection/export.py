"""Write a detector's backbone for other programs: `python detection/export.py --help`."""

from eva_data.extras import explained
from eva_detection.inference.export import main

if __name__ == "__main__":
    explained(main)()
