"""Detection datasets on disk: COCO, YOLO and Pascal VOC, resolved to validated records."""
