"""Train a tokenizer: `python pretrain/train_tokenizer.py RECIPE --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_pretrain.train_command:tokenizer")
