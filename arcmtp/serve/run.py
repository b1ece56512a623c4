"""A server's life: listen, load, serve, drain, end."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from arcmtp.engine.llm import LLM
from arcmtp.serve.app import make_app
from arcmtp.serve.connection import AcceptErrors, Connection
from arcmtp.serve.log import log_to_standard_error
from arcmtp.serve.model_thread import ModelThread
from arcmtp.serve.options import ServeOptions

_LAST_STEP_SECONDS = 5.0  # that a step may still take when the process is to end
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep idle connections, or they meet one that is just being closed
_log = logging.getLogger("arcmtp.serve")


def serve(options: ServeOptions, listener: socket.socket, load: Callable[[], LLM], say: Callable[[str], None]) -> None:
    """Serve on a listening socket until SIGTERM, SIGINT or SIGHUP; what loading raises is raised.

    load: makes the model, in the model's thread; /health answers meanwhile.
    say: gets a line with the address, and one when requests are accepted.
    """
    log_to_standard_error(options.log_level)
    model_thread = ModelThread(load, options.queue, options.step_seconds)
    config = uvicorn.Config(
        make_app(model_thread, options), log_config=None, access_log=False, lifespan="off", ws="none",
        http=Connection, server_header=False, timeout_graceful_shutdown=5, timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )  # fmt: skip
    asyncio.run(_Server(config, model_thread, options.drain_seconds).run_until_stopped(listener, say))


class _Server(uvicorn.Server):
    """uvicorn, except that it goes on listening while the model's thread drains, so that /health can say so."""

    def __init__(self, config: uvicorn.Config, model_thread: ModelThread, drain_seconds: float) -> None:
        super().__init__(config)
        self._model_thread, self._drain_seconds = model_thread, drain_seconds
        self._signals: asyncio.Queue[int] = asyncio.Queue()

    async def run_until_stopped(self, listener: socket.socket, say: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(AcceptErrors())
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            self._loop.add_signal_handler(signal.SIGHUP, self._signals.put_nowait, signal.SIGHUP)
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        say(f"listening on {address}, loading the model")
        serving = asyncio.create_task(self.serve([listener]))
        asked = asyncio.create_task(self._signals.get())
        loading = asyncio.create_task(self._model_thread.start())
        try:
            await asyncio.wait({loading, asked}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                say(f"ready: {address}/v1")
            await asked
            await self._drain()
        finally:
            ended = await asyncio.to_thread(self._model_thread.stop, _LAST_STEP_SECONDS)
            self.should_exit = True
            await serving
        if not ended:  # in the middle of a step or of loading: nothing else ends that
            os._exit(0)

    async def _drain(self) -> None:
        """Let the work go on until it is done, for a limited time, or until a second signal."""
        _log.info("draining")
        self._model_thread.drain()
        idle, again = asyncio.create_task(self._model_thread.idle()), asyncio.create_task(self._signals.get())
        await asyncio.wait({idle, again}, timeout=self._drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        again.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's signal handler."""
        self._loop.call_soon_threadsafe(self._signals.put_nowait, sig)
