"""COCO-Stuff-164K, 171 classes; layout and names as in mmsegmentation's documentation."""

_base_ = "data_896.py"

from eva_segmentation.parts import with_annotations  # noqa: E402

_data = dict(type="COCOStuffDataset", data_root="data/coco_stuff164k")
train_dataloader = dict(dataset=with_annotations("train2017", **_data))
val_dataloader = dict(dataset=with_annotations("val2017", **_data))
test_dataloader = val_dataloader
