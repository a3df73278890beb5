"""Pairs: rows of modalities observed at one place, from tables, folders and feature files."""
