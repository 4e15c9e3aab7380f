"""Train a tokenizer: `python pretrain/train_tokenizer.py RECIPE --help`."""

from eva_pretrain.train_command import tokenizer
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(tokenizer)()
