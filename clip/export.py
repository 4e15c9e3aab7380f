"""Write both towers for other programs: `python clip/export.py --help`."""

from eva_contrastive.commands import export
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(export)()
