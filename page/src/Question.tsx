import { useSignal } from "@preact/signals";
import { Branches } from "./Branches";
import { CopyButton } from "./CopyButton";
import type { Message } from "./conversation";
import { IconButton } from "./icons";
import { edit, writing } from "./state";
import { TextInput } from "./TextInput";

export function Question({ message }: { message: Message }) {
  const editing = useSignal(false);
  return (
    <article class="question" aria-label="You">
      {editing.value ? (
        <Editor message={message} close={() => (editing.value = false)} />
      ) : (
        <>
          <div class="bubble">{message.content}</div>
          <div class="tools">
            <Branches message={message} />
            <CopyButton text={message.content} />
            <IconButton icon="edit" label="Edit" disabled={writing.value} onClick={() => (editing.value = true)} />
          </div>
        </>
      )}
    </article>
  );
}

function Editor({ message, close }: { message: Message; close: () => void }) {
  const text = useSignal(message.content);
  const send = (): void => {
    if (!text.value.trim() || writing.value) return;
    close();
    edit(message, text.value);
  };
  return (
    <form class="editor" onSubmit={(event) => (event.preventDefault(), send())}>
      <TextInput label="Edit the message" text={text} takesFocus send={send} cancel={close} />
      <p class="tools">
        <button type="button" onClick={close}>Cancel</button>
        <button type="submit" class="primary">Send</button>
      </p>
    </form>
  );
}
