"""The EVA ViT in unmodified mmsegmentation 1.x."""
