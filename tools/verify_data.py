"""Check a data set before training on it, and write a cleaned copy.

    python tools/verify_data.py coco --annotations a.json --images folder/ --write cleaned.json
    python tools/verify_data.py images manifest.toml --write index.safetensors
    python tools/verify_data.py semantic --images photos/ --maps labels/ --classes classes.toml
    python tools/verify_data.py video train.csv --root clips/ --against val.csv --write train.txt

Exit code: 0 without problems (notes are not problems), 1 with problems, also when a cleaned file
was written, 2 if the command line or the file cannot be used.
"""

import sys

from eva_data.checks.command import main

COMMANDS = {
    "captions": ("eva_data.checks.captions", "pictures with captions, and their index"),
    "coco": ("eva_detection.checks.coco", "an annotation file in COCO's or LVIS's format"),
    "images": ("eva_data.checks.manifests", "the images of pre-training, and their index"),
    "semantic": ("eva_segmentation.checks.label_maps", "images and maps for semantic segmentation"),
    "video": ("eva_data.checks.videos", "videos for action recognition, and their clean list"),
}

if __name__ == "__main__":
    sys.exit(main(COMMANDS, about=__doc__))
