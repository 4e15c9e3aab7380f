"""COCO-Stuff-164K, 171 classes; layout and names as in mmsegmentation's documentation."""

_base_ = "data_896.py"

_data = dict(type="COCOStuffDataset", data_root="data/coco_stuff164k")
_val_prefix = dict(img_path="images/val2017", seg_map_path="annotations/val2017")
train_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path="images/train2017", seg_map_path="annotations/train2017"), **_data
    )
)
val_dataloader = dict(dataset=dict(data_prefix=_val_prefix, **_data))
test_dataloader = val_dataloader
