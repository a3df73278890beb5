"""Bytes to arrays: images, rasters, audio."""
