"""Scores of detections, and what is sent to the COCO and LVIS servers."""
