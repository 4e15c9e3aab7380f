"""Tokenised targets: a tokenizer of the teacher's features and its codebook."""
