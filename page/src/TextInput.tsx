import type { Signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";

interface TextInputProps {
  id?: string;
  label: string;
  text: Signal<string>;
  takesFocus: boolean;
  send: () => void;
  cancel?: () => void;
}

/** A field that grows with its text. Enter sends, Shift+Enter begins a line. */
export function TextInput({ id, label, text, takesFocus, send, cancel }: TextInputProps) {
  const area = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    if (!takesFocus) return;
    area.current!.focus();
    area.current!.setSelectionRange(text.value.length, text.value.length);
  }, []);
  useLayoutEffect(() => {
    area.current!.style.height = "auto";
    area.current!.style.height = `${area.current!.scrollHeight}px`;
  }, [text.value]);
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.isComposing) return; // Enter takes what an input method offers
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape" && cancel) {
      event.preventDefault();
      cancel();
    }
  };
  return (
    <textarea
      ref={area} id={id} rows={1} aria-label={label} placeholder={label} value={text.value}
      onInput={(event) => (text.value = event.currentTarget.value)} onKeyDown={onKeyDown}
    />
  );
}
