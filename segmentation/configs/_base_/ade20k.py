"""ADE20K (ADEChallengeData2016), 150 classes; label 0 is unlabelled, mmsegmentation removes it."""

_base_ = "data_896.py"

_data = dict(type="ADE20KDataset", data_root="data/ade/ADEChallengeData2016")
_val_prefix = dict(img_path="images/validation", seg_map_path="annotations/validation")
train_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"), **_data
    )
)
val_dataloader = dict(dataset=dict(data_prefix=_val_prefix, **_data))
test_dataloader = val_dataloader
