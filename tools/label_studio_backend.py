"""Label Studio's predictions by the detector or segmentor that EVA_MODEL names."""

import json
import os
from typing import Any

from label_studio_ml.api import init_app
from label_studio_ml.model import LabelStudioMLBase

from eva_command.label import open_model
from eva_data.images import read_rgb
from eva_data.label_files import describe_image, render_template

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
            objects = [
                detection
                for detection in find(rgb)
                if names[detection["category_id"]] in tag.labels
            ]
            for detection in objects if tag.tag == "RectangleLabels" else ():
                detection.pop("segmentation", None)
            about = {"name": "", "size": rgb.shape[:2], "objects": objects}
            images.append(describe_image(about, names))
        filled = json.loads(render_template("tasks.json", images=images))
        predictions = [result["predictions"][0] for result in filled]
        for detection in (result for prediction in predictions for result in prediction["result"]):
            detection |= {"from_name": control, "to_name": image}
        return [prediction | {"model_version": weights} for prediction in predictions]


app = init_app(Backend)
