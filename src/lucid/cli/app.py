"""The application: help, version, error reporting, and options shared by commands."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lucid.errors import LucidError

RUN, INSIDE, ABOUT = "Run a network", "Look inside", "What there is"
"""The panels of the help."""


class LucidGroup(TyperGroup):
    """Tells what went wrong in one message: the user's model or input is exit code 1.

    LUCID_DEBUG=1 shows the traceback instead.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output has seen enough
            raise
        except (LucidError, OSError) as error:
            if os.environ.get("LUCID_DEBUG"):
                raise
            complain(told(error))
            raise typer.Exit(1) from error


def told(error: Exception) -> str:
    """An error in words; one of the system's with the file that it is about."""
    if isinstance(error, OSError) and not isinstance(error, LucidError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def flowing(text: str) -> str:
    """A help text whose paragraphs fill the terminal. Those that begin with a line of a backspace
    alone keep their lines, as Click has it."""
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        part.removeprefix("\b\n") if part.startswith("\b") else " ".join(part.split("\n"))
        for part in parts
    )


def complain(message: str, label: str = "error", style: str = "red") -> None:
    """Write `label: message` to stderr."""
    typer.secho(f"{label}:", err=True, fg=style, bold=True, nl=False)
    typer.echo(f" {message}", err=True)


def warn(message: str) -> None:
    """Write a warning to stderr."""
    complain(message, "warning", "yellow")


app = typer.Typer(
    name="lucid",
    cls=LucidGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import lucid

        typer.echo(f"lucid {lucid.__version__}")
        raise typer.Exit


@app.callback(
    epilog="MODEL is a registered name ([bold]lucid models[/] lists them), an ONNX file "
    "(net.onnx), a compiled model (net.lucid), a network of timm or torchvision (timm:NAME, "
    "torchvision:NAME), IR text (net.lir, or - for stdin), or something that makes a module of "
    "lucid.nn or torch.nn: package.module:callable or file.py:callable."
)
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Lucid compiles convolutional networks to native CPU code, from Python alone.

    Start with [bold]lucid run resnest_digits picture.png[/], look inside with [bold]lucid ir
    resnest_digits[/], and see how fast it is with [bold]lucid bench resnest_50[/].
    """


# -- options that commands share ------------------------------------------------------------

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A registered name, net.onnx, net.lucid, timm:NAME, torchvision:NAME, "
        "package.module:callable, file.py:callable, or IR text (net.lir, -).",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|pretrained",
        help="Weight file: .safetensors, .pth where torch is installed, another training's .onnx "
        "or .lucid; or `pretrained`, for those that timm and torchvision download.",
    ),
]
RandomWeights = Annotated[
    bool,
    typer.Option("--random-weights", help="Random weights are meant: do not warn of them."),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="S|HxW|CxHxW",
        help="Image size, such as 224, 65x80 (height x width) or 1x32x32.",
        show_default="the model's own, else 224",
    ),
]
Batch = Annotated[int, typer.Option(min=1, help="Images at a time.")]


def _threads(text: str) -> int | None:
    """`auto` or a number, as `lucid.compile` takes it; None is the same as `auto`."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise typer.BadParameter(f"{text!r} is neither a positive number nor 'auto'")
    return int(text)


Threads = Annotated[
    int | None,
    typer.Option(
        parser=_threads,
        metavar="N",
        help="Threads of the team at most; auto: what this process may use, where they help.",
        show_default="auto",
    ),
]
Target = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Instruction set: host, x86-64, x86-64-v3, x86-64-v4 (with VNNI: -vnni; with bfloat16 "
        "besides: -bf16; with AMX: -amx), aarch64 (with dotprod: -dotprod).",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="fast, strict (no Winograd F(4x4) or Strassen: smallest rounding errors), or bf16 "
        "(products of bfloat16, where they are faster)."
    ),
]
Disable = Annotated[
    list[str] | None,
    typer.Option(metavar="PASS", help="A pass to leave out; may be given several times."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")
]
