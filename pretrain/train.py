"""Pre-train a ViT: `python pretrain/train.py RECIPE --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_pretrain.train_command:main")
