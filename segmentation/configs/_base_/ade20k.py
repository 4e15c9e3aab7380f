"""ADE20K (ADEChallengeData2016), 150 classes; label 0 is unlabelled, mmsegmentation removes it."""

_base_ = "data_896.py"

from eva_segmentation.parts import with_annotations  # noqa: E402

_data = dict(type="ADE20KDataset", data_root="data/ade/ADEChallengeData2016")
train_dataloader = dict(dataset=with_annotations("training", **_data))
val_dataloader = dict(dataset=with_annotations("validation", **_data))
test_dataloader = val_dataloader
