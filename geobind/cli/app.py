"""The command line's frame: the application, what its commands share, and how errors are told."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from geobind import __version__
from geobind.errors import GeoBindError, GeoBindWarning, Terminated

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_POSITION = re.compile(r"-[\d.]+\s*,\s*[-+\d.]+")


class Values(TyperCommand):
    """A command whose values may begin with a minus: -33.9,18.4 is a position and no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f" {arg}" if _POSITION.fullmatch(arg) else arg for arg in args])


app = typer.Typer(
    name="geobind",
    help="Learn and use one embedding space for everything known about a place, bound by satellite images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Space = Annotated[str, typer.Argument(metavar="DIR", help="A saved space: a folder or a Hub id.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the accelerator where there is one.")
]
Ray = Annotated[
    bool,
    typer.Option("--ray", help="Divide the work over a Ray cluster: RAY_ADDRESS, else this machine's cores."),
]
OnError = Literal["raise", "skip"]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the recipe: data=/datasets, stages.0.epochs=3; may be repeated.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that decode files; chosen by the data if not given.")
]


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit status 1.

    After SIGTERM the status of `bind` is 75 (EX_TEMPFAIL of sysexits.h): the same command goes on.
    """
    warnings.showwarning = _show_warning
    try:
        app()
    except Terminated as error:
        print(f"geobind: {error}; the same command goes on", file=sys.stderr)
        sys.exit(75)
    except GeoBindError as error:
        print(f"geobind: {error}", file=sys.stderr)
        sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    if issubclass(category, GeoBindWarning):
        print(f"geobind: warning: {message}", file=sys.stderr)
    elif category not in (FutureWarning, DeprecationWarning):
        print(f"{category.__name__}: {message}", file=sys.stderr)


def parse_changes(changes: list[str] | None) -> dict[str, Any]:
    """`--set KEY=VALUE`, with the value as YAML, as `Recipe.load` takes them."""
    import yaml

    found = {}
    for change in changes or []:
        key, equals, value = change.partition("=")
        if not (key and equals):
            raise GeoBindError(f"--set {change}: expected KEY=VALUE, such as stages.0.epochs=3")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise GeoBindError(f"--set {change}: the value is not valid YAML; quote it") from None
    return found


@contextmanager
def interruptible(out: Path) -> Iterator[None]:
    """Ctrl-C ends a long job with a line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"geobind: stopped; what is finished is kept in {out}, and the same command goes on",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


def print_tables(tables: Iterable[Table | Text]) -> None:
    """Print rich tables, as wide as the terminal, and texts, whose lines stay as they are."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for table in tables:
        console.print(table, soft_wrap=isinstance(table, Text))


def _version(value: bool) -> None:
    if value:
        print(f"geobind {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
