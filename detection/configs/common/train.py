"""Training, logging and saving of a run: the keys of detectron2's stock trainer and a few more."""

import torch

train = dict(
    output_dir="./output",
    init_checkpoint="",  # name of an official or bundled file, or a path
    max_iter=90000,
    amp=dict(enabled=True, precision="fp16"),
    accumulate=1,  # batches of one optimizer step
    max_bad_images=10,  # unreadable images that are replaced, at most
    ddp=dict(
        broadcast_buffers=False,
        find_unused_parameters=False,
        fp16_compression="${..amp.enabled}",  # under the loss scale of fp16
    ),
    checkpointer=dict(period=5000, max_to_keep=10),
    eval_period=5000,
    log_period=20,
    progress_bar=True,
    device="cuda" if torch.cuda.is_available() else "cpu",
)
