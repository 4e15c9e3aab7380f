"""A run on pairs (see tests/launcher.py) that notes a digest of each sample as it comes."""

import logging
import sys
import zlib
from pathlib import Path

from torch import nn

from eva_contrastive.data import Pairs, training_transform
from eva_contrastive.model.eva_clip import tokenize
from eva_data.captions.opening import open_captions
from eva_engine import distributed
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.loop import TrainingRun
from eva_engine.steps.parameter_groups import ParameterGroup

tokenize("once, before the processes")


class Tiny(nn.Module):
    """Compares colours with words."""

    def __init__(self):
        super().__init__()
        self.colours, self.words = nn.Linear(3, 4), nn.Embedding(64, 4)

    def forward(self, images, tokens):
        words = self.words(tokens.long() % 64).mean(1)
        return (self.colours(images.mean((2, 3))) - words).square().mean()


def main(arguments):
    location, output, workers, batch_size = arguments
    device = distributed.start("cpu")
    distributed.seed_all(0)
    logging.basicConfig(level=logging.INFO)
    seen = Path(f"{output}.{distributed.rank()}")

    def step(model, batch):
        with seen.open("a") as stream:
            for picture, tokens in zip(*batch, strict=True):
                both = zlib.crc32(tokens.numpy().tobytes(), zlib.crc32(picture.numpy().tobytes()))
                stream.write(f"{both:08x}\n")
        return model(*batch), {}

    transform = training_transform(16, mean=(0.5,) * 3, std=(0.5,) * 3)
    model = Tiny()
    run = RunConfig(
        output=Path(output), resume=True, epochs=2, batch_size=int(batch_size),
        workers=int(workers), tensorboard=False, checkpoint_every=2, log_every=1, device="cpu",
    )  # fmt: skip
    TrainingRun(
        model=model,
        groups=[ParameterGroup(name="all", params=list(model.parameters()))],
        samples=Pairs(open_captions(location), transform, 16),
        step_fn=step,
        run=run,
        optimizer=OptimizerConfig(lr=1e-2, warmup_epochs=0.5),
        config={},
        device=device,
    ).start()
    distributed.stop()
    sys.exit(0)
