"""`arcmtp serve`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.cli.loading import load, model_path, open_model
from arcmtp.cli.options import (
    Parser,
    add_cache_options,
    add_draft_option,
    add_model_options,
    add_mtp_options,
    add_sampling_options,
    integer,
    positive,
    sampling_options,
)
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `serve`."""
    serve = commands.add_parser("serve", help="answer OpenAI's HTTP requests")
    add_model_options(serve)
    add_draft_option(serve)
    add_mtp_options(serve)
    add_cache_options(serve)
    _add_server_options(serve)
    add_sampling_options(serve, "sampling of requests that do not say (default: --temp 1 --top-p 0.95 --top-k 20)")
    serve.set_defaults(run=_serve)


def with_config(parser: Parser, file: Path, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options in `file` and then `arguments`, so that the command line wins.

    Raises ArcmtpError, naming the file, for a wrong option in it.
    """
    from arcmtp.serve.options import config_arguments

    command, *others = arguments
    configured = config_arguments(file)
    try:
        parser.parse_args([command, *configured])
    except ArcmtpError as error:
        raise ArcmtpError(f"{file}: {error}") from None
    return parser.parse_args([command, *configured, *others])


def _add_server_options(parser: Parser) -> None:
    for option, kind, default, text in (
        ("--host", str, "127.0.0.1", "where to listen"),
        ("--port", integer(0), 8080, "where to listen; 0: a free one"),
        ("--parallel", integer(1), 4, "requests that are answered side by side, each with --ctx tokens, up to 32"),
        ("--queue", integer(0), 32, "further requests that may wait"),
        ("--body-limit", positive, 8.0, "MiB of a request's body at most"),
        ("--store-limit", positive, 64.0, "MiB of responses that are kept for previous_response_id"),
        ("--drain-limit", positive, 60.0, "seconds that SIGTERM lets requests go on"),
        ("--step-limit", positive, 60.0, "seconds that a step may take, or a prompt chunk"),
    ):
        parser.add_argument(option, metavar="X", type=kind, default=default, help=f"{text} (default {default})")
    parser.add_argument("--alias", metavar="NAME", help="the model's name (default: the file's)")
    parser.add_argument("--api-key-file", metavar="FILE", type=Path, help="keys, one a line; requests must bring one")
    parser.add_argument(
        "--insecure-no-key", action=argparse.BooleanOptionalAction, help="let other machines in without a key"
    )
    parser.add_argument(
        "--cors-origin", metavar="URL", action="append", default=[], help="a web page that may call; may be repeated"
    )
    parser.add_argument(
        "--page", action=argparse.BooleanOptionalAction, default=True, help="a page at / to chat in (default: yes)"
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info",
        help="the least of what is logged; a line for each request is info (default info)",
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", type=Path, help="a TOML file of these options: port = 8080")


def _serve(options: argparse.Namespace) -> None:
    from arcmtp.engine.sampling import CHAT, Sampler
    from arcmtp.model.network import check_parallel
    from arcmtp.serve.options import ServeOptions, bind, read_keys
    from arcmtp.serve.run import serve

    check_parallel(options.parallel)
    settings = ServeOptions(
        alias=options.alias or model_path(options).stem,
        host=options.host,
        port=options.port,
        api_keys=read_keys(options.api_key_file) if options.api_key_file else (),
        cors_origins=options.cors_origin,
        queue=options.queue,
        body_mib=options.body_limit,
        store_mib=options.store_limit,
        drain_seconds=options.drain_limit,
        step_seconds=options.step_limit,
        log_level=options.log_level,
        sampling=sampling_options(options, CHAT),
        page=options.page,
    )
    with bind(settings, options.insecure_no_key) as listener:
        file = open_model(options)
        file.config.usable_context(options.ctx)
        Sampler(settings.sampling, file.config.vocab)  # which refuses biases of tokens that there are not
        serve(
            settings, listener, lambda: load(options, options.ctx, options.draft, options.parallel, file),
            lambda line: print(line, flush=True),
        )  # fmt: skip
