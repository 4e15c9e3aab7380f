"""What a test's processes do (see tests/launcher.py): the command, or validations."""

import json

import matplotlib.figure  # noqa: F401 (here once, and not in each process)
import open_clip  # noqa: F401 (the same)

from eva_contrastive import commands
from eva_contrastive.evaluation.validation import ContrastiveValidation
from eva_contrastive.model.eva_clip import tokenize
from eva_contrastive.model.loading import load_eva_clip
from eva_data.captions.opening import open_captions
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.config import RunConfig
from eva_runs.commands import say

tokenize("a")  # reads the vocabulary, here once too


def main(arguments):
    name, *rest = arguments
    if name == "evaluate":
        commands.evaluate(rest)
    else:
        validate(*rest)


def validate(weights, captions, folders, output):
    """Write what each process finds, by a model, and by one in half precision."""
    distributed.start("cpu")
    transform = evaluation_transform(32, mean=(0.5,) * 3, std=(0.3,) * 3)
    model = load_eva_clip(weights)
    validation = ContrastiveValidation(
        RunConfig(output=output, epochs=1, batch_size=4, workers=0, device="cpu"),
        pairs=open_captions(captions),
        transform=transform,
        classes=open_labelled(folders, transform, upright=False),
    )
    found = [validation(model), validation(model.bfloat16())]
    say(json.dumps(found))
    distributed.stop()
