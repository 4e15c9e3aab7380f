"""Write both towers for other programs: `python clip/export.py --help`."""

from eva_contrastive.inference.export_command import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
