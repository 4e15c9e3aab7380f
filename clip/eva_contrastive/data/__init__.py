"""Pairs of pictures and captions, as the model takes them."""
