// What the browser keeps: conversations in IndexedDB, which has room; small things in localStorage, which is written
// at once.

import { createStore, del, set, values } from "idb-keyval";
import type { Conversation } from "./conversation";
import { DEFAULTS, type Settings } from "./settings";

const store = createStore("arcmtp", "conversations");

export const loadConversations = (): Promise<Conversation[]> => values(store);
export const saveConversation = (conversation: Conversation): Promise<void> => set(conversation.id, conversation, store);
export const deleteConversation = (id: string): Promise<void> => del(id, store);

export const loadSettings = (): Settings => ({ ...DEFAULTS, ...(read("settings") as Partial<Settings> | null) });
export const saveSettings = (settings: Settings): void => write("settings", settings);

export const loadKey = (): string => String(read("key") ?? "");
export const saveKey = (key: string): void => write("key", key);

/** The text that was typed into a conversation's input and not sent. */
export const loadInput = (conversation: string): string => String(read(`input.${conversation}`) ?? "");
export const saveInput = (conversation: string, text: string): void => write(`input.${conversation}`, text || null);

function read(name: string): unknown {
  try {
    return JSON.parse(localStorage.getItem(`arcmtp.${name}`) ?? "null");
  } catch {
    return null; // a browser that keeps nothing, or another program's value
  }
}

function write(name: string, value: unknown): void {
  try {
    if (value === null) localStorage.removeItem(`arcmtp.${name}`);
    else localStorage.setItem(`arcmtp.${name}`, JSON.stringify(value));
  } catch {
    // Full or forbidden: the page works on without it.
  }
}
