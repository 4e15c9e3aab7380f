"""Train a tokenizer: `python pretrain/train_tokenizer.py RECIPE --help`."""

from eva_data.extras import explained
from eva_pretrain.train_command import tokenizer

if __name__ == "__main__":
    explained(tokenizer)()
