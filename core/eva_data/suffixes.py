"""Which files are taken for pictures and videos, wherever a folder or an archive is searched."""

# Those of torchvision's ImageFolder, by which the official training sets were listed.
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
# What people bring to a demo.
SHOWN_PICTURES = PICTURES | {".gif"}
# Of cameras and phones, the web, broadcasts and discs, and what lists of data sets name.
VIDEOS = frozenset(
    {
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)
LISTED_PICTURES = ", ".join(sorted(suffix.removeprefix(".") for suffix in PICTURES))
LISTED_VIDEOS = ", ".join(sorted(suffix.removeprefix(".") for suffix in VIDEOS))
