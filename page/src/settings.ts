// What a user sets for all conversations. An empty field leaves the choice to the server.

/** The fields of a request that are numbers, as the API names them. */
export const NUMBERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05 },
  { name: "top_p", label: "Top-p", min: 0, max: 1, step: 0.01 },
  { name: "top_k", label: "Top-k", min: 0, max: 1000, step: 1 },
  { name: "min_p", label: "Min-p", min: 0, max: 1, step: 0.01 },
  { name: "max_tokens", label: "Max tokens", min: 1, max: 1_000_000, step: 1 },
  { name: "seed", label: "Seed", min: -1, max: 2 ** 32 - 1, step: 1 },
] as const;

export type NumberName = (typeof NUMBERS)[number]["name"];

export interface Settings {
  systemPrompt: string;
  numbers: Partial<Record<NumberName, number>>;
  /** Draft length. */
  draft: "" | "auto" | number;
  thinking: "" | "on" | "off";
}

export const DEFAULTS: Settings = { systemPrompt: "", numbers: {}, draft: "", thinking: "" };
export const MAX_DRAFTS = 7;

/** The fields that settings add to a request. */
export function requestFields(settings: Settings): Record<string, unknown> {
  return {
    ...settings.numbers,
    ...(settings.draft !== "" && { draft: settings.draft }),
    ...(settings.thinking && { enable_thinking: settings.thinking === "on" }),
  };
}
