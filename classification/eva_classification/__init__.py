"""Image classification with the EVA ViT: fine-tuning, linear probing, robustness, features."""
