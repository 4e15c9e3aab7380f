"""Boxes and outlines of objects in the forms that people have: YOLO, Pascal VOC, COCO exports."""
