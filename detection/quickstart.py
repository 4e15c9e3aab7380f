"""Fine-tune a small EVA detector on your CPU, from data to report: `make quickstart`."""

from pathlib import Path

from eva_detection.quickstart import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)(repository=Path(__file__).resolve().parent.parent)
