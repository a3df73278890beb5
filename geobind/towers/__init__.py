"""Towers: the encoders of the modalities, one file per family, processor beside tower."""
