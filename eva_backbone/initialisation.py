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
def no_init_weights(when: bool = True) -> Iterator[None]:
    """Leave out the random initialisation of each `VisionTransformer` that is built inside.

    EVA-g draws a billion random numbers, which a checkpoint then replaces. Loading one
    (`load_pretrained`, or `load_state_dict` of the ViT or of a model around it) initialises the
    parameters of the ViT that it lacks as usual; `init_weights()` after the context initialises
    all. Until then a forward pass raises `RuntimeError`. Heads, pyramids, adapters and buffers are
    what they always are, but draw other random numbers, as the ViT's come first.

    Args:
        when: Whether it does so, such as whether there is a checkpoint.
    """
    token = _deferred.set(when or _deferred.get())
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
