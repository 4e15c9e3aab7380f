"""Images with captions, in every form in which they lie on disks."""
