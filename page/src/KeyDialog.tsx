import { useSignal } from "@preact/signals";
import { Dialog } from "./Dialog";
import { enterKey, key, keyWanted } from "./state";

export function KeyDialog() {
  const text = useSignal("");
  const submit = (event: Event): void => {
    event.preventDefault();
    if (text.value.trim()) enterKey(text.value);
  };
  return (
    <Dialog title="API key" isOpen={keyWanted.value} close={() => (keyWanted.value = false)}>
      <form onSubmit={submit}>
        <label>
          <span>{key.value ? "The server does not accept this key. Enter another one." : "The server asks for a key."}</span>
          <input
            type="password" name="key" autocomplete="current-password" autofocus value={text.value}
            onInput={(event) => (text.value = event.currentTarget.value)}
          />
        </label>
        <p class="quiet">It is kept in this browser and sent to this server only.</p>
        <p class="dialog-end"><button type="submit" class="primary">Use this key</button></p>
      </form>
    </Dialog>
  );
}
