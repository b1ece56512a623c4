import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Composer } from "./Composer";
import { Header } from "./Header";
import { KeyDialog } from "./KeyDialog";
import { Messages } from "./Messages";
import { SettingsDialog } from "./SettingsDialog";
import { Sidebar } from "./Sidebar";
import { currentId, notice, stop } from "./state";

export function App() {
  const listOpen = useSignal(false); // on narrow screens, where it covers the conversation
  const settingsOpen = useSignal(false);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open], :popover-open")) return;
      if (listOpen.value) listOpen.value = false;
      else stop();
    };
    addEventListener("keydown", onKey);
    matchMedia("(min-width: 761px)").addEventListener("change", () => (listOpen.value = false));
  }, []);
  return (
    <>
      <a class="skip" href="#input" onClick={toInput}>Skip to the message</a>
      <div class={`layout ${listOpen.value ? "list-open" : ""}`}>
        <Sidebar close={() => (listOpen.value = false)} />
        <div class="backdrop" onClick={() => (listOpen.value = false)} />
        <main inert={listOpen.value}>
          <Header
            listOpen={listOpen.value}
            openList={() => (listOpen.value = true)}
            openSettings={() => (settingsOpen.value = true)}
          />
          <Messages />
          <div class="bottom">
            <NoticeLine />
            <Composer key={currentId.value} />
          </div>
        </main>
      </div>
      <SettingsDialog isOpen={settingsOpen.value} close={() => (settingsOpen.value = false)} />
      <KeyDialog />
    </>
  );
}

function toInput(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>("#input")?.focus();
}

function NoticeLine() {
  const { text, action } = notice.value ?? {};
  return (
    <div class="notice" role="status">
      {text && (
        <p>
          <span>{text}</span> {action && <button type="button" onClick={action.run}>{action.label}</button>}
          <button type="button" onClick={() => (notice.value = null)}>Close</button>
        </p>
      )}
    </div>
  );
}
