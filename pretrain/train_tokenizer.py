"""Train a tokenizer: `python pretrain/train_tokenizer.py RECIPE --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_pretrain.commands:train_tokenizer")
