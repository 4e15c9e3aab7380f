"""What mmsegmentation and mmdetection share: both stand on mmengine and mmcv.

mmengine imports DeepSpeed if it is there, which then prints that it has found no GPU, and
transformers, which imports peft and torchao, and that warns of kernels for other devices.
"""

import logging

_ACCELERATOR = "Setting accelerator to CPU"

logging.getLogger("DeepSpeed").addFilter(
    lambda record: not record.getMessage().startswith(_ACCELERATOR)
)
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
