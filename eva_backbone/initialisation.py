"""Building a model whose weights come from a file without drawing them first.

with no_init_weights():
    model = instantiate(cfg.model)  # the ViT's parameters are allocated, not drawn
load_pretrained(model, "eva_psz14to16.pt")
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

HEAD_SCALE = 0.001  # factor of a new head's weights: the first predictions are all but uniform

_deferred: ContextVar[bool] = ContextVar("init_weights_deferred", default=False)


@contextmanager
def no_init_weights() -> Iterator[None]:
    """Leave out the random initialisation of each `VisionTransformer` that is built inside.

    EVA-g draws a billion random numbers, which a checkpoint then replaces. Only the ViT is
    concerned: heads, pyramids, adapters and all buffers are what they always are. Loading a
    checkpoint (`load_pretrained`, `load_weights`, `load_state_dict` of the ViT or of a model around
    it) initialises the ViT's parameters that the file lacks as usual; `init_weights()` after the
    context initialises all. Until one of them a forward pass raises `RuntimeError`, so that nobody
    trains on what the memory happened to hold.

    Heads draw other random numbers than without this context, as the ViT's come first.
    """
    token = _deferred.set(True)
    try:
        yield
    finally:
        _deferred.reset(token)


def init_is_deferred() -> bool:
    """Return whether `no_init_weights` holds."""
    return _deferred.get()


def init_head(head: nn.Linear) -> None:
    """Initialise the head of a classifier as officially; does nothing on the meta device."""
    if not head.weight.is_meta:
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        head.weight.data.mul_(HEAD_SCALE)
