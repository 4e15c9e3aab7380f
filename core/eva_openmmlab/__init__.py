"""What mmsegmentation and mmdetection share: both stand on mmengine and mmcv.

mmengine's runner imports DeepSpeed if it is there, which then prints that it has found no GPU;
mmdetection imports transformers, and that peft and torchao, which warns of other devices' kernels.
"""

import logging

_ACCELERATOR = "Setting accelerator to CPU"

logging.getLogger("DeepSpeed").addFilter(
    lambda record: not record.getMessage().startswith(_ACCELERATOR)
)
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
