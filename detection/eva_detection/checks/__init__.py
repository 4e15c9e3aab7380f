"""Checks of annotation files in COCO's and LVIS's format, with what cleaning leaves of them."""
