"""Loaders of any dataset: shuffled without end, and once in order."""

train_dataloader = dict(persistent_workers=True, sampler=dict(type="InfiniteSampler", shuffle=True))
val_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=False))
test_dataloader = val_dataloader
tta_model = dict(type="StreamingTTA")  # with --tta
