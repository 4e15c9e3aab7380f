"""Contrastive image-text models: EVA-CLIP trained, evaluated and used."""
