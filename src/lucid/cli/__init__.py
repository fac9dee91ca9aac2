"""The command `lucid`: one file per command, or per small family of commands.

Commands import their dependencies when they run, so that `lucid --help` is quick.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

COMMANDS = (
    "run",
    "bench",
    "compile",
    "tune",
    "serve",
    "export",
    "quantize",
    "ir",
    "opt",
    "explain",
    "viz",
    "profile",
    "memory",
    "check",
    "catalogue",
    "inspect",
    "env",
    "cache",
)
"""The modules that declare commands, in the order in which the help shows them."""


def command_line() -> "typer.Typer":
    """The application with all its commands."""
    from lucid.cli.app import app, flowing

    for name in COMMANDS:
        import_module(f"lucid.cli.{name}")
    for command in (app.registered_callback, *app.registered_commands):
        if command is not None and command.callback is not None:
            command.help = flowing(command.callback.__doc__ or "")
    return app


def main() -> None:
    """The entry point of `lucid`. Exit codes: 0 fine, 1 the user's model, input or installation, 2
    usage."""
    try:
        app = command_line()
    except ModuleNotFoundError as problem:  # as where files are served alone
        if problem.name is None or problem.name.startswith("lucid"):
            raise
        sys.exit(
            f"lucid: the command takes the package {problem.name}, which is not installed: pip "
            "install lucid-compiler brings all that it needs"
        )
    app()
