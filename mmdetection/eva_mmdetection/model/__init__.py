"""The detector's parts that mmdetection does not have, and the names of its weights."""
