"""What a run of any trainer looks like on the hub: weights, model card, recipe and scores."""
