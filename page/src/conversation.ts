// A conversation is a tree of messages: an edited or regenerated message becomes a sibling of the first one.

export interface Stats {
  tokens: number;
  tokensPerSecond: number;
  promptTokens: number;
  cachedTokens: number;
  drafted: number;
  accepted: number;
  firstTokenSeconds: number | null;
}

/** An error of a request: one line, and what to do about it. */
export interface Problem {
  message: string;
  advice: string;
}

export interface Message {
  id: string;
  parent: string | null;
  role: "user" | "assistant";
  content: string;
  reasoning: string;
  /** Seconds until the first word of the content, null before it. */
  reasoningSeconds: number | null;
  /** "writing" without a stream: the page was closed meanwhile. */
  state: "complete" | "writing" | "stopped" | "cut" | "failed";
  problem: Problem | null;
  stats: Stats | null;
}

export interface Conversation {
  id: string;
  title: string;
  /** Milliseconds since 1970. */
  updated: number;
  messages: Message[];
  /** The last message of the branch that is shown. */
  leaf: string | null;
}

/** What the API takes as a message. */
export interface ApiMessage {
  role: "system" | "user" | "assistant";
  content: string;
  reasoning_content?: string;
}

const TITLE_LENGTH = 60;

export function newId(): string {
  // crypto.randomUUID is there only on HTTPS and loopback.
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(text: string): Conversation {
  const line = text.trim().split("\n")[0] ?? "";
  const title = line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH - 1)}…` : line;
  return { id: newId(), title, updated: Date.now(), messages: [], leaf: null };
}

export function newMessage(role: Message["role"], parent: string | null, content = ""): Message {
  const state = role === "user" ? "complete" : "writing";
  return { id: newId(), parent, role, content, reasoning: "", reasoningSeconds: null, state, problem: null, stats: null };
}

/** The conversation with further messages, of which the last one is shown. */
export function withMessages(conversation: Conversation, ...added: Message[]): Conversation {
  const leaf = added.at(-1)?.id ?? conversation.leaf;
  return { ...conversation, messages: [...conversation.messages, ...added], leaf };
}

export function withChange(conversation: Conversation, id: string, change: (message: Message) => Message): Conversation {
  const messages = conversation.messages.map((message) => (message.id === id ? change(message) : message));
  return { ...conversation, messages };
}

/** The messages from the first one to `leaf`. */
export function branch(conversation: Conversation, leaf = conversation.leaf): Message[] {
  const byId = new Map(conversation.messages.map((message) => [message.id, message]));
  const found: Message[] = [];
  for (let id = leaf; id !== null; ) {
    const message = byId.get(id);
    if (!message) break;
    found.unshift(message);
    id = message.parent;
  }
  return found;
}

/** The messages that stand in the same place as this one, itself among them, oldest first. */
export function siblings(conversation: Conversation, message: Message): Message[] {
  return conversation.messages.filter((other) => other.parent === message.parent);
}

/** The conversation with the branch shown that last went through a message. */
export function showing(conversation: Conversation, message: Message): Conversation {
  let leaf = message.id;
  for (;;) {
    const child = conversation.messages.findLast((other) => other.parent === leaf);
    if (!child) return { ...conversation, leaf };
    leaf = child.id;
  }
}

export function isEmpty(message: Message): boolean {
  return !message.content && !message.reasoning;
}

/** A branch as the API takes it; answers that never began are left out. */
export function apiMessages(messages: Message[], systemPrompt: string): ApiMessage[] {
  const system: ApiMessage[] = systemPrompt.trim() ? [{ role: "system", content: systemPrompt }] : [];
  const others = messages
    .filter((message) => !isEmpty(message))
    .map(({ role, content, reasoning }) => ({ role, content, ...(reasoning && { reasoning_content: reasoning }) }));
  return [...system, ...others];
}

/** The branch that is shown, as a Markdown document. */
export function asMarkdown(conversation: Conversation): string {
  const parts = branch(conversation).map((message) => {
    const quoted = message.reasoning.trim().replace(/^/gm, "> ");
    const thoughts = message.reasoning.trim() ? `${quoted}\n\n` : "";
    return `## ${message.role === "user" ? "You" : "Assistant"}\n\n${thoughts}${message.content.trim()}\n`;
  });
  return [`# ${conversation.title}\n`, ...parts].join("\n");
}

export function acceptance(stats: Stats): number | null {
  return stats.drafted ? stats.accepted / stats.drafted : null;
}
