"""What mmsegmentation and mmdetection share: both stand on mmengine and mmcv.

mmengine's runner imports DeepSpeed if it is there, which then prints that it has found no GPU.
"""

import logging

_ACCELERATOR = "Setting accelerator to CPU"

logging.getLogger("DeepSpeed").addFilter(
    lambda record: not record.getMessage().startswith(_ACCELERATOR)
)
