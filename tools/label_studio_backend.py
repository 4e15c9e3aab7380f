"""Label Studio's predictions by the detector or segmentor that EVA_MODEL names."""

import json
import os
from typing import Any

from label_studio_ml.api import init_app
from label_studio_ml.model import LabelStudioMLBase

from eva_command.label import open_model
from eva_data.images import read_rgb
from eva_data.writing import described, filled_in

weights = os.environ["EVA_MODEL"]
names, find = open_model(weights, recipe=os.environ.get("EVA_RECIPE"))


class Backend(LabelStudioMLBase):
    """The model in Label Studio's protocol."""

    def predict(self, tasks: list[Any], context: Any = None, **_: Any) -> list[Any]:
        """Predict the classes that the project names, as polygons or rectangles."""
        kinds = ("PolygonLabels", "RectangleLabels")
        control, image, value = self.label_interface.get_first_tag_occurence(kinds, "Image")
        tag, images = self.label_interface.get_control(control), []
        for task in tasks:
            file = self.get_local_path(task["data"][value], task_id=task.get("id"))
            rgb = read_rgb(file, upright=True)
            objects = [one for one in find(rgb) if names[one["category_id"]] in tag.labels]
            for one in objects if tag.tag == "RectangleLabels" else ():
                one.pop("segmentation", None)
            about = {"name": "", "size": rgb.shape[:2], "objects": objects}
            images.append(described(about, names))
        filled = json.loads(filled_in("tasks.json", images=images))
        predictions = [one["predictions"][0] for one in filled]
        for one in (one for prediction in predictions for one in prediction["result"]):
            one |= {"from_name": control, "to_name": image}
        return [prediction | {"model_version": weights} for prediction in predictions]


app = init_app(Backend)
