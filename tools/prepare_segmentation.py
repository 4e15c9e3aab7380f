"""Convert label maps of COCO-Stuff: `python tools/prepare_segmentation.py --help`."""

import sys

from eva_segmentation.data.coco_stuff import main

if __name__ == "__main__":
    sys.exit(main())
