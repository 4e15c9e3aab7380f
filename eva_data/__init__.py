"""What lies on disk: the floor that every project stands on, beside `eva_backbone`.

* `files`, `run_folder`: written completely or not at all, found whatever links there are, one run;
* `suffixes`, `pictures`, `video`: which files are pictures and videos, and the one decoder of each;
* `names`, `sources`: images without labels, in folders, tar shards and manifests with an index;
* `labelled`: folders of classes, data sets by name, ImageNet and its variants;
* `transforms`: what becomes of a picture before a model sees it in an evaluation;
* `inputs`, `options`, `commands`: what demos, options and programs of one step have in common;
* `pools`, `checks`: work in several processes; checks of data sets, their findings and command;
* `interruption`, `seeding`: signals that ask a run to stop, random numbers by seed and place.

It imports nothing of this toolkit, and numpy, Pillow and torch only; torchvision and av where they
are used.
"""
