"""Write and check files for COCO's and LVIS's servers: `python tools/make_submission.py --help`."""

import sys

from eva_detection.evaluation.submission import main

if __name__ == "__main__":
    sys.exit(main())
