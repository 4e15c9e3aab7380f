"""Annotation files in COCO format, checked and made uniform."""
