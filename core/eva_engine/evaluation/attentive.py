"""An attentive probe of frozen features.

The mean of all tokens hides what few of them show. In the probe a learned query attends to the
tokens, as in V-JEPA (https://arxiv.org/abs/2404.08471) and AIM (https://arxiv.org/abs/2401.08541).

Shapes: N samples, T frames (1 of an image), P tokens of a frame, C channels, K classes.
"""

import argparse
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_engine.commands.options import PROBE_EPOCHS, PROBE_RATES

STEPS = 300  # at least, by default
BATCH_SIZE = 32
WEIGHT_DECAY = 0.05
KEPT = torch.float16  # tokens wait in this number format
_HEAD_WIDTH = 64


class AttentiveProbe(nn.Module):
    """One block: cross-attention of a learned query over the tokens, MLP, linear classifier.

    Each frame has a learned position, which begins at zero: the tokens of image models do not say
    when they are.

    Args:
        channels: C.
        frames: T.
        num_classes: K.
    """

    def __init__(self, channels: int, *, frames: int, num_classes: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _HEAD_WIDTH)
        while channels % self.heads:
            self.heads -= 1
        self.query = nn.Parameter(torch.empty(1, 1, channels))
        self.frame_positions = nn.Parameter(torch.zeros(1, frames, 1, channels))
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.to_query = nn.Linear(channels, channels)
        self.to_key_value = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.head = nn.Linear(channels, num_classes)
        nn.init.normal_(self.query)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits (N, K) of tokens (N, T, P, C)."""
        context = (self.norm1(tokens) + self.frame_positions).flatten(1, 2)  # (N, T * P, C)
        query = self.query.expand(tokens.shape[0], -1, -1)  # (N, 1, C)
        key, value = self.to_key_value(context).chunk(2, dim=2)
        attended = F.scaled_dot_product_attention(
            self._split(self.to_query(query)), self._split(key), self._split(value)
        )
        query = query + self.proj(attended.transpose(1, 2).flatten(2))  # (N, 1, C)
        query = query + self.mlp(self.norm2(query))
        logits: Tensor = self.head(query[:, 0])
        return logits

    def _split(self, values: Tensor) -> Tensor:
        """Give each head its channels: (N, L, heads * c) to (N, heads, L, c)."""
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FittedProbe(NamedTuple):
    """A trained probe, with the rate and epochs that knew most held-out videos, and their share."""

    probe: AttentiveProbe
    learning_rate: float
    epoch: int
    right: float

    def __call__(self, tokens: Tensor) -> Tensor:
        """Compute logits (N, K), on the device of the probe, of tokens (N, T, P, C) anywhere."""
        return _logits(self.probe, tokens, torch.arange(len(tokens)))


def fit_probe(
    tokens: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    learning_rates: Sequence[float] = PROBE_RATES,
    epochs: int | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> FittedProbe:
    """Train a probe with each learning rate, and keep the one that is best on a fifth held out.

    After each epoch the held-out videos are judged, so that the number of epochs is chosen too.
    AdamW, a linear warm-up over a tenth of the steps, then a cosine to zero.

    Args:
        tokens: (N, T, P, C), in any number format and on any device.
        labels: (N,).
        num_classes: K.
        learning_rates: Largest learning rates to try.
        epochs: Passes over the data; None for at least `PROBE_EPOCHS` and as many as give `STEPS`.
        device: Device of the training; None for that of the tokens.
        seed: Of initialisation, order and the part held out.

    Raises:
        ValueError: If there is too little data to hold any out.
        FloatingPointError: If no training stays finite.
    """
    if len(tokens) < 5:
        raise ValueError(
            f"{len(tokens)} samples are too few to hold a fifth of them out: give at least 5, or "
            "no attentive probe"
        )
    device = device or tokens.device
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    held, rest = order.tensor_split([len(tokens) // 5])
    labels = labels.to(device)
    if epochs is None:
        epochs = max(PROBE_EPOCHS, -(-STEPS // -(-len(rest) // BATCH_SIZE)))
    best, fitted = (-1, 0.0), None
    for rate in learning_rates:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            probe = AttentiveProbe(tokens.shape[3], frames=tokens.shape[1], num_classes=num_classes)
        probe.to(device)
        trained = _train(probe, tokens, labels, rest, rate=rate, epochs=epochs, seed=seed)
        for epoch in trained:
            logits, truth = _logits(probe, tokens, held), labels[held.to(device)]
            right, loss = int((logits.argmax(1) == truth).sum()), F.cross_entropy(logits, truth)
            if loss.isfinite() and (right, -loss.item()) > best:
                best = right, -loss.item()
                fitted = FittedProbe(copy.deepcopy(probe), rate, epoch, right / len(held))
    if fitted is None:
        raise FloatingPointError(
            "the loss of the attentive probe is not finite: give smaller --probe-lr"
        )
    return fitted


def _train(
    probe: AttentiveProbe,
    tokens: Tensor,
    labels: Tensor,
    positions: Tensor,
    *,
    rate: float,
    epochs: int,
    seed: int,
) -> Iterator[int]:
    """Yield the number of each epoch after it."""
    device = probe.query.device
    groups: list[dict[str, Any]] = [
        {"params": [value for value in probe.parameters() if value.ndim == 2]},
        {"params": [value for value in probe.parameters() if value.ndim != 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(positions) // BATCH_SIZE)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        order = positions[torch.randperm(len(positions), generator=generator)]
        for batch in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            inputs = tokens[batch.to(tokens.device)].to(device).float()
            F.cross_entropy(probe(inputs), labels[batch.to(device)]).backward()
            optimizer.step()
            schedule.step()
        yield epoch


@torch.inference_mode()
def _logits(probe: AttentiveProbe, tokens: Tensor, positions: Tensor) -> Tensor:
    """Compute logits (number of positions, K) of some of the samples, on the probe's device."""
    device = probe.query.device
    parts = (tokens[batch.to(tokens.device)] for batch in positions.split(BATCH_SIZE))
    return torch.cat([probe(part.to(device).float()) for part in parts])


def choose_probe(
    options: argparse.Namespace,
    *,
    unit: str,
    samples: int,
    frames: int = 1,
    patches: int,
    channels: int,
) -> str:
    """Choose the probe's input, "tokens" (N, T, P, C), "frames" (N, T, 1, C) or "none", by size."""
    means = samples * frames * channels * KEPT.itemsize / 1e9
    needed = {"tokens": means * patches, "frames": means, "none": 0.0}
    inputs = ["tokens", "frames"] if options.probe == "auto" else [options.probe]
    for name in inputs:
        if needed[name] <= options.probe_gb:
            return str(name)
    raise ValueError(
        f"the {inputs[-1]} of {samples} {unit} take {needed[inputs[-1]]:.2g} GB, and --probe-gb is "
        f"{options.probe_gb:g}: give more, fewer --train-{unit}, or no attentive probe of them"
    )
