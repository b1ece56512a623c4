import { Branches } from "./Branches";
import { CopyButton } from "./CopyButton";
import { acceptance, isEmpty, type Message, type Stats } from "./conversation";
import { IconButton } from "./icons";
import { Markdown } from "./Markdown";
import { regenerate, resume, writing } from "./state";

const ENDS: Partial<Record<Message["state"], string>> = {
  stopped: "Stopped.",
  cut: "The limit of tokens is reached.",
  writing: "The page was closed before the answer was complete.",
};

export function Answer({ message }: { message: Message }) {
  const active = message.state === "writing" && writing.value;
  return (
    <article class="answer" aria-label="Assistant">
      {message.reasoning && <Reasoning message={message} active={active} />}
      <Markdown text={message.content} />
      {active && isEmpty(message) && <p class="waiting" role="img" aria-label="waiting for the answer"><i /><i /><i /></p>}
      {!active && <End message={message} />}
      {!active && (
        <div class="tools">
          <Branches message={message} />
          {message.content && <CopyButton text={message.content} />}
          <IconButton icon="again" label="Regenerate" disabled={writing.value} onClick={() => regenerate(message)} />
          {message.stats && <Figures stats={message.stats} />}
        </div>
      )}
    </article>
  );
}

function Reasoning({ message, active }: { message: Message; active: boolean }) {
  const { reasoningSeconds, reasoning } = message;
  const thinking = active && reasoningSeconds === null;
  const time = reasoningSeconds === null ? "" : ` for ${seconds(reasoningSeconds)}`;
  return (
    <details class="reasoning">
      <summary class={thinking ? "thinking" : ""}>{thinking ? "Thinking …" : `Thought${time}`}</summary>
      <Markdown text={reasoning} />
    </details>
  );
}

/** Why an answer ended that is not complete, and the way on. */
function End({ message }: { message: Message }) {
  const { state, problem } = message;
  if (state === "complete") return message.content.trim() ? null : <p class="quiet">The model ended without an answer.</p>;
  return (
    <p class={`end ${problem ? "problem" : ""}`} role={problem ? "alert" : undefined}>
      <span>{problem ? `${problem.message} ${problem.advice}` : ENDS[state]}</span>
      <button type="button" disabled={writing.value} onClick={() => resume(message)}>
        {isEmpty(message) ? "Try again" : "Continue"}
      </button>
    </p>
  );
}

function Figures({ stats }: { stats: Stats }) {
  const accepted = acceptance(stats);
  const parts = [
    `${stats.tokensPerSecond.toFixed(1)} tokens/s`,
    accepted === null ? "no drafts" : `${Math.round(accepted * 100)} % of drafts accepted`,
    `${stats.tokens} tokens`,
    stats.firstTokenSeconds === null ? "" : `first after ${seconds(stats.firstTokenSeconds)}`,
  ];
  const more = [
    `Prompt: ${stats.promptTokens} tokens, ${stats.cachedTokens} of them from the cache.`,
    `Drafts: ${stats.accepted} of ${stats.drafted} tokens accepted.`,
  ];
  return <p class="figures quiet" title={more.join("\n")}>{parts.filter(Boolean).join(" · ")}</p>;
}

function seconds(value: number): string {
  return `${value.toFixed(value < 1 ? 2 : value < 10 ? 1 : 0)} s`;
}
