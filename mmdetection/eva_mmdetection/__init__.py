"""The EVA ViT in unmodified mmdetection 3.x."""
