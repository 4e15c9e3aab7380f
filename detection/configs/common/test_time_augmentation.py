"""Test-time augmentation with the scales of the authors' leftover code; `--eval-only` uses it.

`test.aug.area_ranges=official` switches on their table of the areas that each scale contributes.
"""

from detectron2.config import LazyCall as L

from eva_detection.inference.test_time_augmentation import EVARCNNWithTTA

test = dict(
    aug=L(EVARCNNWithTTA)(
        enabled=True,
        min_sizes=[1280, 1536, 1664, 1792, 1920, 2048],
        max_sizes=None,  # as min_sizes
        flip=False,
        area_ranges=None,
        keep_all_before_merge=True,
        mask_size=1536,
    )
)
