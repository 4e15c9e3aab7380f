"""Train a CLIP: `python clip/train.py RECIPE --help`."""

from eva_contrastive.train_command import main

if __name__ == "__main__":
    main()
