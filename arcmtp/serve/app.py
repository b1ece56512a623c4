"""The routes."""

import asyncio
import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from arcmtp import __version__
from arcmtp.engine.llm import LLM
from arcmtp.engine.sampling import SamplingOptions
from arcmtp.errors import ArcmtpError
from arcmtp.serve.completions import Completions
from arcmtp.serve.details import Details
from arcmtp.serve.errors import ApiError, as_json, handle
from arcmtp.serve.http import CLIENT_GONE, ClientGone, EventStream, Gate, unless_gone
from arcmtp.serve.messages_api.reply import MessageReply
from arcmtp.serve.messages_api.request import MessagesRequest, PromptRequest
from arcmtp.serve.metrics import Metrics
from arcmtp.serve.model_thread import ModelThread
from arcmtp.serve.native_api.reply import NativeReply
from arcmtp.serve.native_api.request import InfillRequest, NativeRequest, TextRequest
from arcmtp.serve.options import ServeOptions
from arcmtp.serve.page import add_page
from arcmtp.serve.prepare import Prepared, prepare_chat, prepare_completion, template_messages
from arcmtp.serve.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    GenerationRequest,
    TokenizeRequest,
)
from arcmtp.serve.rendering import Rendering
from arcmtp.serve.reply import Reply
from arcmtp.serve.responses import (
    ChatCompletion,
    Completion,
    Deleted,
    ErrorResponse,
    Health,
    InputTokens,
    MessageTokens,
    ModelList,
    ModelObject,
    NativeAnswers,
    PromptText,
    Props,
    SlotObject,
    Text,
    TokenizerInfo,
    Tokens,
)
from arcmtp.serve.responses_api.reply import ResponseReply
from arcmtp.serve.responses_api.request import InputRequest, ResponsesRequest
from arcmtp.serve.responses_api.store import Store

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 404, 413, 429, 500, 503)
}
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def make_app(model_thread: ModelThread, options: ServeOptions) -> FastAPI:
    """The application around a model's thread; it may still be loading."""
    app = FastAPIOffline(  # FastAPI's own page takes its scripts from another server
        redoc_url=None, static_url="/docs/assets",
        title="arcmtp", version=__version__, summary="An OpenAI-compatible server", responses=_ERRORS,
    )  # fmt: skip
    metrics = Metrics(model_thread, options.alias)
    app.add_middleware(Gate, keys=options.api_keys, body_bytes=int(options.body_mib * 2**20), metrics=metrics)
    if options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
        )
    for kind in (ApiError, ArcmtpError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(ClientGone, _nobody)
    service, details = Service(model_thread, options, metrics), Details(model_thread)
    _add_routes(
        app,
        ("/v1/chat/completions", "POST", service.chat, {"response_model": ChatCompletion, "responses": _STREAM}),
        ("/v1/completions", "POST", service.complete, {"response_model": Completion, "responses": _STREAM}),
        ("/completion", "POST", service.continue_text, {"response_model": NativeAnswers, "responses": _STREAM}),
        ("/completions", "POST", service.continue_text, {"include_in_schema": False}),
        ("/infill", "POST", service.infill, {"response_model": NativeAnswers, "responses": _STREAM}),
        ("/v1/responses", "POST", service.respond, {"responses": _STREAM}),
        ("/v1/responses/input_tokens", "POST", service.count_input, {}),
        ("/v1/responses/{response_id}", "GET", service.response, {}),
        ("/v1/responses/{response_id}", "DELETE", service.delete_response, {}),
        ("/v1/messages", "POST", service.message, {"responses": _STREAM}),
        ("/v1/messages/count_tokens", "POST", service.count_message, {}),
        ("/v1/models", "GET", service.models, {"response_model": ModelList}),
        ("/v1/models/{model:path}", "GET", service.model, {"response_model": ModelObject}),
        ("/tokenize", "POST", service.tokenize, {"response_model": Tokens}),
        ("/detokenize", "POST", service.detokenize, {"response_model": Text}),
        ("/health", "GET", service.health, {"response_model": Health}),
        ("/metrics", "GET", service.metrics, {"response_class": Response}),
        ("/props", "GET", service.props, {"response_model": Props}),
        ("/slots", "GET", details.slots, {"response_model": list[SlotObject]}),
        ("/apply-template", "POST", details.apply_template, {"response_model": PromptText}),
        ("/tokenizer_info", "GET", details.tokenizer_info, {"response_model": TokenizerInfo}),
    )
    if options.page:
        add_page(app)
    return app


def _add_routes(app: FastAPI, *routes: tuple[str, str, Callable[..., Any], dict[str, Any]]) -> None:
    """Path, method, body and options of each. Those under /v1 are there without it too, unless another is."""
    paths = {path for path, *_ in routes}
    for path, method, route, options in routes:
        app.add_api_route(path, route, methods=[method], **options)
        if (bare := path.removeprefix("/v1")) not in paths:
            app.add_api_route(bare, route, methods=[method], include_in_schema=False, **options)


Prepare = Callable[[LLM, SamplingOptions], Prepared]


class Generation(Protocol):
    """What every request for a generation has."""

    model: str | None
    stream: bool | None


class Service:
    """The routes' bodies. Whatever takes long without the device, such as tokenizing, leaves the event loop free."""

    def __init__(self, model_thread: ModelThread, options: ServeOptions, metrics: Metrics) -> None:
        self._model_thread, self._options, self._metrics = model_thread, options, metrics
        self._created = int(time.time())
        self._store = Store(int(options.store_mib * 2**20))

    async def chat(self, request: Request, body: ChatRequest) -> Response:
        """Answer the last of the messages."""
        return await self._generate(
            request, body, lambda llm, defaults: prepare_chat(llm, body, defaults), _completions(body)
        )

    async def complete(self, request: Request, body: CompletionRequest) -> Response:
        """Continue text."""
        return await self._generate(
            request, body, lambda llm, defaults: prepare_completion(llm, body, defaults), _completions(body)
        )

    async def continue_text(self, request: Request, body: TextRequest) -> Response:
        """Continue text, in llama-server's own shape."""
        return await self._native(request, body)

    async def infill(self, request: Request, body: InfillRequest) -> Response:
        """Fill in what stands between two texts, in llama-server's own shape."""
        return await self._native(request, body)

    async def _native(self, request: Request, body: NativeRequest) -> Response:
        return await self._generate(
            request, body, lambda llm, defaults: prepare_completion(llm, body.completion(llm), defaults),
            lambda reply: NativeReply(reply, body),
        )  # fmt: skip

    async def respond(self, request: Request, body: ResponsesRequest) -> Response:
        """Answer in OpenAI's Responses."""
        items = self._store.conversation(body)

        def keep(response: dict[str, Any]) -> None:
            if body.store is not False:
                self._store.add(response, items)

        return await self._generate(
            request, body, lambda llm, defaults: prepare_chat(llm, body.chat(items), defaults),
            lambda reply: ResponseReply(reply, body, keep),
        )  # fmt: skip

    async def count_input(self, body: InputRequest) -> InputTokens:
        """Tokens that the model would read for a response."""
        items = self._store.conversation(body)
        return {"object": "response.input_tokens", "input_tokens": await self._count(body, lambda: body.chat(items))}

    async def response(self, response_id: str) -> Response:
        """A stored response."""
        return Response(self._store.get(response_id).response, media_type="application/json")

    async def delete_response(self, response_id: str) -> Deleted:
        """Forget a response; others that follow it stay."""
        self._store.delete(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    async def message(self, request: Request, body: MessagesRequest) -> Response:
        """Answer in Anthropic's Messages."""
        return await self._generate(
            request, body, lambda llm, defaults: prepare_chat(llm, body.chat(), defaults), MessageReply
        )

    async def count_message(self, body: PromptRequest) -> MessageTokens:
        """Tokens that the model would read for a message."""
        return {"input_tokens": await self._count(body, body.chat)}

    async def models(self) -> ModelList:
        """The one model."""
        return {"object": "list", "data": [self._model()]}

    async def model(self, model: str) -> ModelObject:
        """The model, by its name."""
        self._check_model(model)
        return self._model()

    async def tokenize(self, body: TokenizeRequest) -> Tokens:
        """Token ids of text or messages."""
        self._check_model(body.model)
        llm = self._model_thread.llm
        if body.messages is None and body.add_special:
            tokens = await asyncio.to_thread(llm.prompt_ids, body.content or "")
        elif body.messages is None:
            tokens = await asyncio.to_thread(llm.tokenizer.encode, body.content or "", context=llm.context)
        else:
            tokens = await asyncio.to_thread(llm.prompt_ids, template_messages(body.messages))
        return {"tokens": tokens, "count": len(tokens)}

    async def detokenize(self, body: DetokenizeRequest) -> Text:
        """Text of token ids."""
        self._check_model(body.model)
        text = await asyncio.to_thread(self._model_thread.llm.detokenize, body.tokens)
        return {"content": text, "prompt": text}

    async def health(self) -> JSONResponse:
        """200 when requests are accepted, else 503."""
        state = self._model_thread.state
        return JSONResponse({"status": state}, 200 if state == "ready" else 503)

    async def metrics(self) -> Response:
        """Prometheus' text format."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def props(self) -> Props:
        """What runs here, and its limits."""
        llm, options = self._model_thread.llm, self._options
        sampling = dataclasses.asdict(options.sampling)
        return {
            "model": options.alias,
            "version": __version__,
            "device": llm.device.sycl_device.name,
            "context": llm.context,
            "vocabulary": llm.config.vocab,
            "slots": llm.parallel,
            "draft": llm.draft,
            "queue": options.queue,
            "body_mib": options.body_mib,
            "sampling": {name: value for name, value in sampling.items() if name != "logit_bias"},  # -inf has no JSON
        }

    async def _generate(
        self, request: Request, body: Generation, prepare: Prepare, render: Callable[[Reply], Rendering]
    ) -> Response:
        began = time.monotonic()
        self._check_model(body.model)
        prepared = await asyncio.to_thread(prepare, self._model_thread.llm, self._options.sampling)
        submission = self._model_thread.submit(prepared.jobs)
        reply = Reply(prepared, submission, self._options.alias, self._metrics.token_gap)
        rendering = render(reply)
        record = request.state.record

        def close(error: ApiError | None = None) -> None:
            submission.cancel()
            self._metrics.reply(reply, began)
            record.update(
                _figures(reply, began), answer=rendering.id, choices=len(prepared.jobs), stream=bool(body.stream)
            )
            if error:  # of a stream, whose answer began with status 200
                record.update(status=error.status, error=error.message)

        if body.stream:
            return EventStream(rendering, close)
        try:
            return as_json(await unless_gone(request, rendering.whole()))
        finally:
            close()

    async def _count(self, body: InputRequest | PromptRequest, chat: Callable[[], ChatRequest]) -> int:
        self._check_model(body.model)
        llm, defaults = self._model_thread.llm, self._options.sampling
        return (await asyncio.to_thread(lambda: prepare_chat(llm, chat(), defaults))).prompt_tokens

    def _check_model(self, model: str | None) -> None:
        if model not in (None, self._options.alias):
            raise ApiError(
                404, f"there is no model {model!r} here, only {self._options.alias!r}", "model", "model_not_found"
            )

    def _model(self) -> ModelObject:
        return {"id": self._options.alias, "object": "model", "created": self._created, "owned_by": "arcmtp"}


def _completions(body: GenerationRequest) -> Callable[[Reply], Completions]:
    include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return lambda reply: Completions(reply, include_usage)


def _figures(reply: Reply, began: float) -> dict[str, Any]:
    """What the request log says of a generation whose request came at `began`."""
    usage, timings = reply.usage(), reply.timings_object()
    drafted, accepted = timings.get("draft_n", 0), timings.get("draft_n_accepted", 0)
    return {
        "model": reply.model,
        "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "finish_reasons": reply.finish_reasons,
        "queue_ms": timings["queue_ms"],
        "first_token_ms": round((reply.first_token - began) * 1e3, 3) if reply.first_token else None,
        "prompt_per_second": timings["prompt_per_second"],
        "predicted_per_second": timings["predicted_per_second"],
        "draft_acceptance": round(accepted / drafted, 4) if drafted else None,
    }


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
