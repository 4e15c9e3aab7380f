"""What lies on disk: images, videos, class folders, detection datasets, captions, and shards.

It imports nothing of this toolkit, and numpy, Pillow and torch only; torchvision, av and
pycocotools where they are used.
"""
