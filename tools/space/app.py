"""A Space with the pages of the run in the folder `model`, or of what EVA_MODEL names."""

import os
import threading
from pathlib import Path

from eva_app.command import find_source
from eva_app.models import Models
from eva_app.server import serve

names = os.environ.get("EVA_MODEL", str(Path(__file__).with_name("model"))).split()
model = os.environ.get("EVA_RECIPE"), os.environ.get("EVA_TASK")  # of weights that are of no run
models = Models([find_source(name, *model) for name in names])
if __name__ == "__main__":
    with serve(models, host="0.0.0.0", port=7860):
        threading.Event().wait()
