"""Pre-train a ViT: `python pretrain/train.py RECIPE --help`."""

from eva_pretrain.training import main

if __name__ == "__main__":
    main()
