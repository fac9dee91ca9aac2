"""`lucid serve`: compiled models over HTTP, by the Open Inference Protocol v2.

`tensors` reads and writes the tensors of requests, `protocol` the requests, and `bodies` takes them
from the network; `images` decodes images, `model` is what answers, with a Batcher in front,
`sources` names the files of the command line, `repository` has the models of them by name and
version, and `fleet` what the workers know of one another; `app` is the ASGI application, `server`
runs it. None of it is imported before it is asked for: it needs packages of its own.
"""

from lucid.errors import MissingPackageError

try:
    import httptools as _httptools  # noqa: F401
    import prometheus_client as _prometheus  # noqa: F401
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise MissingPackageError(
        f"`lucid serve` needs {error.name}, which is not installed: "
        "pip install 'lucid-compiler[serve]'"
    ) from error
