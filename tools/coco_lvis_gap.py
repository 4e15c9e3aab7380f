"""Print the gap between COCO and LVIS: `python tools/coco_lvis_gap.py --help`."""

import sys

from eva_detection.evaluation.coco_lvis_gap import main

if __name__ == "__main__":
    sys.exit(main())
