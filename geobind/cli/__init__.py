"""The command line: each module holds the commands of one subject, which parse, call the public API, print."""

from geobind.cli import data, demo, gallery, interop, mapping, spaces, tasks  # noqa: F401  each registers its commands; the order is that of --help
from geobind.cli.app import app, main

__all__ = ["app", "main"]
