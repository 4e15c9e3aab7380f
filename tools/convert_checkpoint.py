"""Convert a checkpoint for another project: `python tools/convert_checkpoint.py --help`."""

import sys

from eva_contrastive.model.open_clip_program import OPEN_CLIP
from eva_engine.commands.convert import OtherPrograms, converter, deferred

MMDET = OtherPrograms(files={"mmdet": deferred("eva_mmdetection.model.detectron2_names", "to_mmdet")})

main = converter(OPEN_CLIP, MMDET)

if __name__ == "__main__":
    sys.exit(main())
