"""Images with labels: folders of classes, data sets by name, ImageNet and its variants."""
