"""The segmentor's parts: backbones, adapter, head, sliding window, weights."""
