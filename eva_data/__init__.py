"""Files, images and data sets shared by all projects.

* `files`, `outputs`: atomic writes, loop-safe search, one run per folder;
* `suffixes`, `pictures`, `video`: which files are pictures and videos, and the one decoder of each;
* `sources`: images without labels, in folders, tar shards and manifests with an index;
* `labelled`: folders of classes, data sets by name, ImageNet and its variants;
* `labelled_videos`: videos with labels in every form in which they lie on disks;
* `kinetics`: the classes of Kinetics-400, 600, 700, and of the sets that merge them;
* `captions`: pictures with captions, in shards, tables, lists and folders;
* `coco`, `object_data`: annotation files in COCO format, checked and made uniform; YOLO and VOC;
* `transforms`, `drawing`: the transform of an evaluation; objects, classes, letters on pictures;
* `reports`, `terminal`, `progress`: the page of a run, its lines on the terminal, its bar;
* `inputs`, `demos`: inputs of demos and what they found;
* `options`, `commands`, `command_line`: types of options, exit codes of programs, words in any
  order;
* `recipes`, `extras`: recipes by name, wherever they lie; what is not installed, in a sentence;
* `pools`, `checks`: work in several processes; checks of data sets, their findings and command;
* `interruption`, `sampling`, `holdout`: stop signals; random numbers by seed and place; a share
  of the samples that is evaluated on.

It imports nothing of this toolkit, and numpy, Pillow and torch only; torchvision, av and
pycocotools where they are used.
"""
