"""What an optimizer step of contrastive training consists of."""
