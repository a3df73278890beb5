"""Ranks, metrics and intervals of retrieval between two modalities."""
