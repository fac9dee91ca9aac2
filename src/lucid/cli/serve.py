"""`lucid serve`: models over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from lucid.cli.app import RUN, Threads, app


@app.command(rich_help_panel=RUN)
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="net.lucid, NAME=net.lucid, NAME:VERSION=net.lucid, or a folder with a file for "
            "each version (1/model.lucid).",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 is any that is free.")
    ] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes, which share the port and the weights.")
    ] = 1,
    threads: Threads = None,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Rows of one call at most; requests of more are several.")
    ] = 8,
    max_delay_ms: Annotated[
        float, typer.Option(min=0, help="How long a request waits for others, while idle.")
    ] = 2.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests for a model that wait or run at most, else 429.")
    ] = 256,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds until a request is given up: 503.")
    ] = 30.0,
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, help="The largest body in MB (2^20 bytes), else 413.")
    ] = 64.0,
    max_bodies_mb: Annotated[
        float, typer.Option(min=0.001, help="MB of bodies that a worker holds at most, else 503.")
    ] = 1024.0,
    body_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for a body to arrive, else 408.")
    ] = 30.0,
    header_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for the head of a request to arrive.")
    ] = 10.0,
    connections: Annotated[
        int, typer.Option(min=1, help="Connections of a worker; more are closed at once.")
    ] = 1000,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds from SIGTERM (not ready) to closing the port.")
    ] = 0.0,
    grace: Annotated[
        float, typer.Option(min=1, help="Seconds for requests to finish after that.")
    ] = 30.0,
    control: Annotated[
        bool,
        typer.Option("--control/--no-control", help="Whether requests may load and unload models."),
    ] = True,
) -> None:
    """Serve compiled models over HTTP: the Open Inference Protocol v2, as Triton has it.

    \b
    lucid serve resnet50.lucid
    lucid serve cats=a.lucid cats:2=b.lucid --port 9000 --workers 4 --threads 2
    lucid serve models/resnet50 --host 0.0.0.0 --max-batch 16

    Requests are put into batches where that changes no bit. Models whose file says how images are
    prepared take JPEG, PNG and WebP as they are (datatype BYTES). Prometheus reads /metrics. At
    SIGTERM requests finish. Needs: pip install 'lucid-compiler[serve]'.
    """
    from lucid.serve.app import Limits
    from lucid.serve.server import LOOPBACK, Serving
    from lucid.serve.server import serve as run_server
    from lucid.serve.sources import parse_sources

    sources = parse_sources(models)
    limits = Limits(
        body=int(max_body_mb * (1 << 20)),
        bodies=int(max_bodies_mb * (1 << 20)),
        queue=queue,
        seconds=timeout,
        body_seconds=body_timeout,
        control=control,
        drain=drain,
    )
    serving = Serving(
        host,
        port,
        workers,
        threads,
        max_batch,
        max_delay_ms,
        header_timeout,
        grace,
        connections,
        limits,
    )

    def started(address: str, each: int) -> None:
        names = ", ".join(source.name for source in sources)
        typer.echo(f"serving {names} on {address}: {workers} worker(s) of {each} thread(s)")
        if host not in LOOPBACK:
            typer.echo(
                "INFO: whoever reaches this address may use the models"
                f"{' and reload or unload them (--no-control)' if control else ''}: there is no "
                "authentication"
            )

    run_server(sources, serving, started)
