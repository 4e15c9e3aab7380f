"""Train a tokenizer: `python pretrain/train_tokenizer.py RECIPE --help`."""

from eva_pretrain.tokens.training import main

if __name__ == "__main__":
    main()
