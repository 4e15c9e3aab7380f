"""EVA detectors inside unmodified detectron2: backbone, training, data sets."""
