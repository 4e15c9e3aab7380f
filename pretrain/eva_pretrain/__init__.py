"""Masked image modelling: EVA learns to predict the CLIP features of hidden patches."""
