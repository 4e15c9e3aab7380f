"""Which files are taken for pictures and videos, wherever a folder or an archive is searched."""

# Those of torchvision's ImageFolder, by which the official training sets were listed.
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
# What people bring to a demo.
SHOWN_PICTURES = PICTURES | {".gif"}
VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
LISTED_PICTURES = ", ".join(sorted(suffix.removeprefix(".") for suffix in PICTURES))
LISTED_VIDEOS = ", ".join(sorted(suffix.removeprefix(".") for suffix in VIDEOS))
