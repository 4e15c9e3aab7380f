"""A block of attention over frozen tokens, which finds out where to look.

The mean of all tokens hides what few of them show. Here a learned query attends to the tokens, as
in V-JEPA (https://arxiv.org/abs/2404.08471) and AIM (https://arxiv.org/abs/2401.08541).

Shapes: N videos, T frames, P tokens of a frame, C channels, K classes.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_video.config import PROBE_EPOCHS, PROBE_RATES

STEPS = 300  # at least, by default
BATCH_SIZE = 32
WEIGHT_DECAY = 0.05
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
        """Classify.

        Args:
            tokens: (N, T, P, C).

        Returns:
            Logits (N, K).
        """
        context = (self.norm1(tokens) + self.frame_positions).flatten(1, 2)  # (N, T * P, C)
        query = self.query.expand(len(tokens), -1, -1)  # (N, 1, C)
        key, value = self.to_key_value(context).chunk(2, dim=2)
        found = F.scaled_dot_product_attention(
            self._split(self.to_query(query)), self._split(key), self._split(value)
        )
        query = query + self.proj(found.transpose(1, 2).flatten(2))  # (N, 1, C)
        query = query + self.mlp(self.norm2(query))
        logits: Tensor = self.head(query[:, 0])
        return logits

    def _split(self, values: Tensor) -> Tensor:
        """Give each head its channels: (N, L, heads * c) to (N, heads, L, c)."""
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A trained probe; call it on tokens.

    Attributes:
        probe: The probe, in evaluation mode.
        learning_rate: Largest learning rate of its training.
        epoch: Epochs after which it was best, of those of the training.
        right: Share of the held-out videos that it knew.
    """

    probe: AttentiveProbe
    learning_rate: float
    epoch: int
    right: float

    def __call__(self, tokens: Tensor) -> Tensor:
        """Compute logits (N, K), on the device of the probe, of tokens (N, T, P, C) anywhere."""
        device = self.probe.query.device
        with torch.inference_mode():
            parts = [self.probe(part.to(device).float()) for part in tokens.split(BATCH_SIZE)]
        return torch.cat(parts)


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
        seed: Seed of the initialisation, the order and the part held out.

    Returns:
        The probe.

    Raises:
        ValueError: If there is nothing to try, or too little data to hold any out.
        FloatingPointError: If no training stays finite.
    """
    if not learning_rates or (epochs is not None and epochs < 1):
        raise ValueError("there is no learning rate or no epoch to try")
    if len(tokens) < 5:
        raise ValueError(
            f"{len(tokens)} samples are too few to hold a fifth of them out: give at least 5, or "
            "--probe none"
        )
    device = device or tokens.device
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    held, rest = order.tensor_split([len(tokens) // 5])
    labels = labels.cpu()
    if epochs is None:
        epochs = max(PROBE_EPOCHS, -(-STEPS // -(-len(rest) // BATCH_SIZE)))
    best: tuple[tuple[int, float], FittedProbe] | None = None
    for rate in learning_rates:
        probe = _build(tokens, num_classes=num_classes, seed=seed).to(device)
        trained = _train(probe, tokens, labels, rest, rate=rate, epochs=epochs, seed=seed)
        for epoch in trained:
            right, loss = _judge(probe, tokens, labels, held)
            if math.isfinite(loss) and (best is None or (right, -loss) > best[0]):
                fitted = FittedProbe(
                    probe=copy.deepcopy(probe), learning_rate=rate, epoch=epoch,
                    right=right / len(held),
                )  # fmt: skip
                best = (right, -loss), fitted
    if best is None:
        raise FloatingPointError("the loss of the attentive probe is not finite: give smaller "
                                 "--probe-lr")  # fmt: skip
    return best[1]


def _build(tokens: Tensor, *, num_classes: int, seed: int) -> AttentiveProbe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AttentiveProbe(tokens.shape[3], frames=tokens.shape[1], num_classes=num_classes)


def _train(
    probe: AttentiveProbe,
    tokens: Tensor,
    labels: Tensor,
    places: Tensor,
    *,
    rate: float,
    epochs: int,
    seed: int,
) -> Iterator[int]:
    """Yield the number of each epoch after it, with the probe in evaluation mode."""
    device = probe.query.device
    groups: list[dict[str, Any]] = [
        {"params": [value for value in probe.parameters() if value.ndim == 2]},
        {"params": [value for value in probe.parameters() if value.ndim != 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(places) // BATCH_SIZE)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        probe.train()
        order = places[torch.randperm(len(places), generator=generator)]
        for batch in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            inputs = tokens[batch.to(tokens.device)].to(device).float()
            F.cross_entropy(probe(inputs), labels[batch].to(device)).backward()
            optimizer.step()
            schedule.step()
        probe.eval()
        yield epoch


def _judge(
    probe: AttentiveProbe, tokens: Tensor, labels: Tensor, places: Tensor
) -> tuple[int, float]:
    """Count the right predictions for held-out videos, and give their mean loss."""
    device, right, loss = probe.query.device, 0, 0.0
    with torch.inference_mode():
        for batch in places.split(BATCH_SIZE):
            logits = probe(tokens[batch.to(tokens.device)].to(device).float())
            truth = labels[batch].to(device)
            right += int((logits.argmax(1) == truth).sum())
            loss += F.cross_entropy(logits, truth, reduction="sum").item()
    return right, loss / len(places)
