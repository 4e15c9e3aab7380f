r"""Write features of images or texts to files.

One vector for each image below a folder, by any weights of this toolkit:
    eva extract --weights eva_psz14.pt --images photos --output output/photos

Maps of patch features of a detector at 640 px, on 8 GPUs:
    torchrun --nproc-per-node 8 -m eva_command extract --weights eva_coco_det.pth \
        --image-size 640 --kind patches --images photos --output output/maps

EVA-CLIP's embeddings, which can be compared, of images, and of a text in each line of a file:
    ... --weights eva_clip_psz14.pt --kind embedding --images photos --output output/images
    ... --weights eva_clip_psz14.pt --texts captions.txt --output output/texts

The same command continues an interrupted run. In Python:
    from eva_engine.extraction import read_features
    names, features = read_features("output/photos")
"""

from eva_classification.commands import VIT_FEATURES
from eva_contrastive.commands import EMBEDDINGS
from eva_engine.commands.extraction import extraction_command

main = extraction_command("eva extract", [VIT_FEATURES, EMBEDDINGS], about=str(__doc__))
