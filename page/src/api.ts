// The server's API.

import { EventSourceParserStream } from "eventsource-parser/stream";
import type { ApiMessage, Problem, Stats } from "./conversation";

/** An answer other than success, or none at all (status 0). */
export class ApiFailure extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code: string | null = null,
    readonly retryAfter: string | null = null,
  ) {
    super(message);
  }
}

/** What GET /props says, as far as the page uses it. */
export interface Props {
  model: string;
  version: string;
  device: string;
  context: number;
  draft: number | "auto";
  sampling: Record<string, number | null>;
}

/** A piece of an answer. */
export interface Piece {
  content: string;
  reasoning: string;
  finishReason: string | null;
  stats: Stats | null;
}

interface Chunk {
  choices?: { delta: { content?: string; reasoning_content?: string }; finish_reason: string | null }[];
  usage?: { completion_tokens: number; prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } };
  timings?: { predicted_per_second: number; draft_n?: number; draft_n_accepted?: number };
  error?: { message: string; code: string | null };
}

export async function getProps(key: string): Promise<Props> {
  const response = await ask("/props", key, {});
  return response.json();
}

/** "ready", "loading", "draining" or "failed". Throws ApiFailure if the server cannot be reached. */
export async function getHealth(): Promise<string> {
  const response = await fetch("/health").catch(unreachable);
  return (await response.json()).status;
}

/** The pieces of an answer as they come. Throws ApiFailure, also when the stream breaks off. */
export async function* chat(
  messages: ApiMessage[],
  fields: Record<string, unknown>,
  key: string,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  const body = JSON.stringify({ messages, ...fields, stream: true, stream_options: { include_usage: true } });
  const began = performance.now();
  const response = await ask("/v1/chat/completions", key, { method: "POST", body, signal });
  let firstToken: number | null = null;
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk: Chunk = JSON.parse(data);
    if (chunk.error) throw new ApiFailure(500, chunk.error.message, chunk.error.code);
    const choice = chunk.choices?.[0];
    const { content = "", reasoning_content: reasoning = "" } = choice?.delta ?? {};
    if (firstToken === null && (content || reasoning)) firstToken = (performance.now() - began) / 1000;
    yield { content, reasoning, finishReason: choice?.finish_reason ?? null, stats: statsOf(chunk, firstToken) };
  }
  throw new ApiFailure(0, "The connection to the server was lost.");
}

/** One line about an error, and what to do. */
export function problemOf(error: unknown): Problem {
  if (!(error instanceof ApiFailure)) return { message: `The page failed: ${error}.`, advice: "Reload it." };
  return { message: error.message, advice: adviceFor(error) };
}

function adviceFor({ status, code, retryAfter }: ApiFailure): string {
  if (code === "context_length_exceeded") return "Begin a new conversation, or start the server with a larger --ctx.";
  if (code === "loading") return "Wait until the model is loaded, then try again.";
  if (code === "draining" || code === "failed") return "Restart the server, then try again.";
  switch (status) {
    case 0: return "Check that the server runs, then try again.";
    case 400: return "Change the setting or message that it names.";
    case 401: return "Enter another key in the settings.";
    case 413: return "Begin a new conversation, or shorten the message.";
    case 429: return `Try again in ${retryAfter ?? "some"} s.`;
    default: return "Try again; the server's log may say more.";
  }
}

async function ask(path: string, key: string, init: RequestInit): Promise<Response> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (key) headers["Authorization"] = `Bearer ${key}`;
  const response = await fetch(path, { ...init, headers, cache: "no-store" }).catch(unreachable);
  if (response.ok) return response;
  const text = await response.text();
  let message = `The server answered with status ${response.status}`;
  let code: string | null = null;
  try {
    ({ message, code } = JSON.parse(text).error);
  } catch {
    // Not this server's: a proxy's, for example.
  }
  throw new ApiFailure(response.status, sentence(message), code, response.headers.get("Retry-After"));
}

async function* events(response: Response): AsyncGenerator<string> {
  const parsed = response.body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  const reader = parsed.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(unreachable);
      if (done) return;
      yield value.data;
    }
  } finally {
    void reader.cancel().catch(() => {});
  }
}

function unreachable(error: unknown): never {
  if (error instanceof DOMException && error.name === "AbortError") throw error;
  throw new ApiFailure(0, "The connection to the server was lost.");
}

function sentence(text: string): string {
  return text.endsWith(".") ? text : `${text}.`;
}

function statsOf({ usage, timings }: Chunk, firstTokenSeconds: number | null): Stats | null {
  if (!usage || !timings) return null;
  return {
    tokens: usage.completion_tokens,
    tokensPerSecond: timings.predicted_per_second,
    promptTokens: usage.prompt_tokens,
    cachedTokens: usage.prompt_tokens_details.cached_tokens,
    drafted: timings.draft_n ?? 0,
    accepted: timings.draft_n_accepted ?? 0,
    firstTokenSeconds,
  };
}
