import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Answer } from "./Answer";
import { branch } from "./conversation";
import { Question } from "./Question";
import { current, props, writing } from "./state";

const NEAR_END = 60; // pixels from the end within which the view follows the text

export function Messages() {
  const view = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const conversation = current.value;
  const messages = conversation ? branch(conversation) : [];
  useEffect(() => {
    follows.current = true;
  }, [conversation?.id, messages.length]);
  useLayoutEffect(() => {
    if (follows.current && view.current) view.current.scrollTop = view.current.scrollHeight;
  });
  const onScroll = (): void => {
    const { scrollHeight, scrollTop, clientHeight } = view.current!;
    follows.current = scrollHeight - scrollTop - clientHeight < NEAR_END;
  };
  return (
    <div ref={view} class="view" onScroll={onScroll} tabIndex={0} role="region" aria-label="Conversation">
      <div class="messages" role="log" aria-live="polite" aria-busy={writing.value}>
        {messages.map((message) =>
          message.role === "user" ? (
            <Question key={message.id} message={message} />
          ) : (
            <Answer key={message.id} message={message} />
          ),
        )}
      </div>
      {messages.length === 0 && <Welcome />}
    </div>
  );
}

function Welcome() {
  const { model, context, device } = props.value ?? {};
  return (
    <div class="welcome">
      <h2>What would you like to know?</h2>
      {model && (
        <p class="quiet">
          {model} on {device}, {context?.toLocaleString("en")} tokens of context
        </p>
      )}
    </div>
  );
}
