// What the page shows, and everything that a user can do.

import { computed, effect, signal } from "@preact/signals";
import { ApiFailure, chat, getHealth, getProps, problemOf, type Piece, type Props } from "./api";
import {
  apiMessages, branch, newConversation, newMessage, showing, withChange, withMessages,
  type Conversation, type Message,
} from "./conversation";
import { requestFields } from "./settings";
import {
  deleteConversation, loadConversations, loadKey, loadSettings, saveConversation, saveInput, saveKey,
  saveSettings,
} from "./storage";

const SAVE_MS = 500; // between two writes of changes that come one after the other
const PAINT_MS = 40; // between two changes of what is shown, at least
const PAINTED_PER_MS = 200; // characters: Markdown of 27,000 took 110 ms to read on a busy machine
const POLL_MS = 1000;
const NOTICE_MS = 4000;

interface Notice {
  text: string;
  isBrief?: boolean;
  action?: { label: string; run: () => void };
}

export const conversations = signal<ReadonlyMap<string, Conversation>>(new Map());
/** Empty for a conversation that has not begun. */
export const currentId = signal(location.hash.slice(1));
export const current = computed(() => conversations.value.get(currentId.value) ?? null);
/** The answers under way, by conversation. */
export const streams = signal<ReadonlyMap<string, AbortController>>(new Map());
export const writing = computed(() => streams.value.has(currentId.value));
export const settings = signal(loadSettings());
export const key = signal(loadKey());
export const keyWanted = signal(false);
export const props = signal<Props | null>(null);
export const health = signal("connecting");
export const notice = signal<Notice | null>(null);

const unsaved = new Map<string, number>(); // timers
let connecting = false;

export function start(): void {
  effect(() => saveSettings(settings.value));
  effect(() => {
    if (notice.value?.isBrief) setTimeout(clear, NOTICE_MS, notice.value);
  });
  addEventListener("hashchange", () => (currentId.value = location.hash.slice(1)));
  addEventListener("pagehide", saveAll);
  document.addEventListener("visibilitychange", () => (document.hidden ? saveAll() : void reload()));
  void reload();
  void connect();
}

export function open(id: string): void {
  location.hash = id;
  currentId.value = id;
}

export function send(text: string): void {
  const conversation = current.value ?? newConversation(text);
  ask(conversation, newMessage("user", conversation.leaf, text));
}

/** Ask anew with another text in the place of a message: a branch. */
export function edit(message: Message, text: string): void {
  ask(current.value!, newMessage("user", message.parent, text));
}

/** Another answer beside this one. */
export function regenerate(answer: Message): void {
  const other = newMessage("assistant", answer.parent);
  put(withMessages(current.value!, other));
  void generate(currentId.value, other.id);
}

/** Go on with an answer that is not complete, from where it ends. */
export function resume(answer: Message): void {
  void generate(currentId.value, answer.id);
}

export function stop(): void {
  streams.value.get(currentId.value)?.abort();
}

export function show(message: Message): void {
  put(showing(current.value!, message));
}

export function rename(title: string): void {
  if (title.trim()) put({ ...current.value!, title: title.trim() });
}

export function remove(): void {
  const conversation = current.value!;
  stop();
  conversations.value = new Map([...conversations.value].filter(([id]) => id !== conversation.id));
  clearTimeout(unsaved.get(conversation.id));
  unsaved.delete(conversation.id);
  saveInput(conversation.id, "");
  void deleteConversation(conversation.id).catch(notKept);
  open("");
  const undo = (): void => {
    put(conversation);
    open(conversation.id);
    notice.value = null;
  };
  notice.value = { text: `“${conversation.title}” is deleted.`, action: { label: "Undo", run: undo } };
}

/** Take a key, and try it. */
export function enterKey(text: string): void {
  key.value = text.trim();
  saveKey(key.value);
  keyWanted.value = false;
  void connect();
}

/** Wait until the server accepts requests, and ask what runs there. */
async function connect(): Promise<void> {
  if (connecting) return;
  connecting = true;
  while (!(await isConnected())) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  connecting = false;
}

/** Whether there is nothing left to wait for. */
async function isConnected(): Promise<boolean> {
  try {
    if (health.value !== "connecting") health.value = await getHealth();
    if (health.value !== "connecting" && health.value !== "ready") return false;
    props.value = await getProps(key.value);
    health.value = "ready";
    return true;
  } catch (error) {
    const { status, code } = error instanceof ApiFailure ? error : { status: 0, code: null };
    keyWanted.value = status === 401;
    health.value = status === 401 ? "connecting" : (code ?? "unreachable");
    return keyWanted.value;
  }
}

function ask(conversation: Conversation, question: Message): void {
  const answer = newMessage("assistant", question.id);
  put({ ...withMessages(conversation, question, answer), updated: Date.now() });
  void save(conversation.id);
  open(conversation.id);
  void generate(conversation.id, answer.id);
}

async function generate(id: string, answerId: string): Promise<void> {
  const abort = new AbortController();
  streams.value = new Map(streams.value).set(id, abort);
  const change = (change: (message: Message) => Message): void => {
    const conversation = conversations.value.get(id);
    if (conversation) put(withChange(conversation, answerId, change));
  };
  change((message) => ({ ...message, state: "writing", problem: null, stats: null }));
  const messages = apiMessages(branch(conversations.value.get(id)!, answerId), settings.value.systemPrompt);
  const began = performance.now();
  let waiting: Piece[] = [];
  let timer = 0;
  let length = 0;
  const paint = (): void => {
    clearTimeout(timer);
    timer = 0;
    const pieces = waiting;
    waiting = [];
    if (pieces.length) change((message) => pieces.reduce((m, piece) => withPiece(m, piece, began), message));
  };
  let state: Message["state"] = "complete";
  let problem: Message["problem"] = null;
  try {
    for await (const piece of chat(messages, requestFields(settings.value), key.value, abort.signal)) {
      waiting.push(piece);
      length += piece.content.length + piece.reasoning.length;
      timer ||= setTimeout(paint, Math.max(PAINT_MS, length / PAINTED_PER_MS));
      if (piece.finishReason === "length") state = "cut";
    }
  } catch (error) {
    state = abort.signal.aborted ? "stopped" : "failed";
    if (state === "failed") problem = problemOf(error);
    if (error instanceof ApiFailure && error.status === 401) keyWanted.value = true;
    if (error instanceof ApiFailure && [0, 503].includes(error.status)) void connect();
  }
  paint();
  change((message) => ({ ...message, state, problem }));
  await save(id);
  streams.value = new Map([...streams.value].filter(([other]) => other !== id));
}

function withPiece(message: Message, piece: Piece, began: number): Message {
  const content = message.content + piece.content;
  const reasoning = message.reasoning + piece.reasoning;
  const begins = message.reasoningSeconds === null && reasoning && content.trim();
  const reasoningSeconds = begins ? (performance.now() - began) / 1000 : message.reasoningSeconds;
  return { ...message, content, reasoning, reasoningSeconds, stats: piece.stats ?? message.stats };
}

function put(conversation: Conversation): void {
  conversations.value = new Map(conversations.value).set(conversation.id, conversation);
  if (!unsaved.has(conversation.id)) {
    unsaved.set(conversation.id, setTimeout(save, SAVE_MS, conversation.id));
  }
}

async function save(id: string): Promise<void> {
  clearTimeout(unsaved.get(id));
  unsaved.delete(id);
  const conversation = conversations.value.get(id);
  if (conversation) await saveConversation(conversation).catch(notKept);
}

function saveAll(): void {
  for (const id of unsaved.keys()) void save(id);
}

/** Take over what another tab has written. */
async function reload(): Promise<void> {
  try {
    const stored = await loadConversations();
    const own = [...conversations.value].filter(([id]) => unsaved.has(id) || streams.value.has(id));
    conversations.value = new Map([...stored.map((one) => [one.id, one] as const), ...own]);
  } catch {
    notKept();
  }
}

function clear(old: Notice): void {
  if (notice.value === old) notice.value = null;
}

function notKept(): void {
  notice.value = { text: "This browser does not keep conversations: they end with this page." };
}
