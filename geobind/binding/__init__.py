"""Binding: stages, their links and losses, the cache of frozen targets, the training loop."""
