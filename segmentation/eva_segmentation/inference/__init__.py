"""A trained segmentor at work: prediction, drawing, the demo."""
