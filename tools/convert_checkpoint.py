"""Convert a checkpoint for another project: `python tools/convert_checkpoint.py --help`."""

import sys

from eva_contrastive.model.open_clip_folder import OPEN_CLIP
from eva_engine.commands.convert import converter

main = converter(OPEN_CLIP)

if __name__ == "__main__":
    sys.exit(main())
