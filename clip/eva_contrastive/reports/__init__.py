"""What a training and an evaluation of CLIP say of themselves."""
