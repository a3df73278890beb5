"""Checkpoints and formats of other projects: theirs become a space, a space becomes theirs."""
