"""Train a tokenizer: `python pretrain/train_tokenizer.py RECIPE --help`."""

from eva_pretrain.training import main_tokenizer

if __name__ == "__main__":
    main_tokenizer()
