"""The demo: a miniature Earth, bound through satellite images, evaluated and drawn."""
