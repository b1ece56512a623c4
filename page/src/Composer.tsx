import { effect, useSignal } from "@preact/signals";
import { useLayoutEffect } from "preact/hooks";
import { IconButton } from "./icons";
import { currentId, send, stop, writing } from "./state";
import { loadInput, saveInput } from "./storage";
import { TextInput } from "./TextInput";

const TOUCH = matchMedia("(pointer: coarse)"); // where a field with the focus brings up a keyboard over half the page

/** The input of the current conversation; what was typed is there again after the page was closed. */
export function Composer() {
  const id = currentId.peek();
  const text = useSignal(loadInput(id));
  // At once, and not after the next frame as useSignalEffect: sending takes this component away.
  useLayoutEffect(() => effect(() => saveInput(id, text.value)), []);
  const submit = (): void => {
    if (!text.value.trim() || writing.value) return;
    const question = text.value;
    text.value = "";
    send(question);
  };
  return (
    <form class="composer" onSubmit={(event) => (event.preventDefault(), submit())}>
      <div class="box">
        <TextInput id="input" label="Message" text={text} takesFocus={!TOUCH.matches} send={submit} />
        {writing.value ? (
          <IconButton icon="stop" label="Stop" class="primary" onClick={stop} />
        ) : (
          <IconButton icon="send" label="Send" class="primary" disabled={!text.value.trim()} onClick={submit} />
        )}
      </div>
      <p class="quiet hint">Enter sends, Shift+Enter begins a line, Escape stops. Check what a model says.</p>
    </form>
  );
}
