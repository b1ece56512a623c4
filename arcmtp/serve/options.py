"""How a server is set up, checked before anything is loaded."""

import ipaddress
import os
import socket
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arcmtp.engine.sampling import CHAT, SamplingOptions
from arcmtp.errors import ArcmtpError


@dataclass(frozen=True)
class ServeOptions:
    """What `arcmtp serve` takes besides the model's options.

    alias: the model's name towards clients.
    api_keys: one of them must come with each request but those of /health and the page; none: no key is needed.
    cors_origins: web pages that may call the server; `*` is every one.
    queue: requests that may wait for a slot.
    body_mib: size of a request's body at most.
    store_mib: size of the responses that are kept for `previous_response_id`.
    drain_seconds: how long SIGTERM lets running and waiting requests go on.
    step_seconds: how long a step, or a prompt chunk, may take before the process gives up (status 70).
    log_level: the least of what is logged: debug, info, warning or error.
    sampling: for requests that do not say.
    page: whether `/` is a page to chat in.
    """

    alias: str
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Sequence[str] = ()
    cors_origins: Sequence[str] = ()
    queue: int = 32
    body_mib: float = 8
    store_mib: float = 64
    drain_seconds: float = 60
    step_seconds: float = 60
    log_level: str = "info"
    sampling: SamplingOptions = field(default=CHAT)
    page: bool = True


def bind(options: ServeOptions, insecure: bool) -> socket.socket:
    """A listening socket. ArcmtpError if others than this machine could reach it without a key, unless `insecure`."""
    where = f"--host {options.host} --port {options.port}"
    if options.port > 65535:
        raise ArcmtpError(f"{where}: ports go up to 65535")
    try:
        family, *_, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ArcmtpError(f"{where}: {error}") from None
    if not (options.api_keys or insecure or ipaddress.ip_address(address[0]).is_loopback):
        raise ArcmtpError(
            f"--host {options.host} is reachable from other machines: give --api-key-file FILE, or --insecure-no-key"
        )
    try:
        listener = socket.create_server((str(address[0]), options.port), family=family)
    except OSError as error:
        raise ArcmtpError(f"{where}: cannot listen there: {os.strerror(error.errno or 0)}") from None
    # Connections inherit it. asyncio sets it only on sockets made with the protocol's number; without it the body of
    # an answer, and each event of a stream, may wait 40 ms for the client to acknowledge what came before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def read_keys(path: Path) -> list[str]:
    """The keys of a file, one a line; ArcmtpError if there is none."""
    keys = [line.strip() for line in _read(path).splitlines() if line.strip()]
    if not keys or not all(key.isascii() and len(key.split()) == 1 for key in keys):
        raise ArcmtpError(f"{path}: expected one key a line, of ASCII characters without spaces")
    return keys


def config_arguments(path: Path) -> list[str]:
    """The command line that a TOML file stands for: its keys are the long options without dashes, lists repeat one."""
    try:
        content = tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise ArcmtpError(f"{path}: not TOML: {error}") from None
    arguments = []
    for key, value in content.items():
        values = value if isinstance(value, list) else [value]
        if key in ("config", "help") or not all(isinstance(one, str | int | float) for one in values):
            raise ArcmtpError(f"{path}: {key} cannot stand there; expected long options such as port = 8080")
        for one in values:
            if isinstance(one, bool):
                arguments.append(f"--{key}" if one else f"--no-{key}")
            else:
                arguments.append(f"--{key}={one}")
    return arguments


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ArcmtpError(f"{path}: byte {error.start} is not UTF-8") from None
