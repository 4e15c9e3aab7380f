"""What mmsegmentation and mmdetection share: both stand on mmengine and mmcv."""
