import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { download, fileName } from "./browser";
import { asMarkdown } from "./conversation";
import { Icon, IconButton } from "./icons";
import { current, health, props, remove, rename } from "./state";

interface HeaderProps {
  listOpen: boolean;
  openList: () => void;
  openSettings: () => void;
}

const HEALTH: Record<string, string> = {
  connecting: "connecting …",
  loading: "loading the model …",
  draining: "the server is going down",
  failed: "the device has failed: restart the server",
  unreachable: "the server cannot be reached",
};

export function Header({ listOpen, openList, openSettings }: HeaderProps) {
  const menuButton = useRef<HTMLButtonElement>(null);
  const wasOpen = useRef(false);
  useEffect(() => {
    if (listOpen) document.querySelector<HTMLElement>("#list a")?.focus();
    else if (wasOpen.current && !document.activeElement?.matches("#input")) menuButton.current?.focus();
    wasOpen.current = listOpen;
  }, [listOpen]);
  return (
    <header>
      <button
        ref={menuButton} type="button" class="icon narrow-only" aria-label="Conversations" title="Conversations"
        aria-controls="list" aria-expanded={listOpen} onClick={openList}
      >
        <Icon name="menu" />
      </button>
      <Title />
      <IconButton icon="settings" label="Settings" onClick={openSettings} />
    </header>
  );
}

function Title() {
  const editing = useSignal(false);
  const conversation = current.value;
  useEffect(() => {
    document.title = conversation ? `${conversation.title} – arcmtp` : "arcmtp";
    editing.value = false;
  }, [conversation?.id, conversation?.title]);
  if (conversation && editing.value) {
    return <TitleInput title={conversation.title} close={() => (editing.value = false)} />;
  }
  const status = health.value === "ready" ? props.value?.model : HEALTH[health.value];
  return (
    <>
      <div class="title">
        <h1>{conversation?.title ?? "New conversation"}</h1>
        <p class="quiet" role="status">{status}</p>
      </div>
      {conversation && <Actions edit={() => (editing.value = true)} />}
    </>
  );
}

function TitleInput({ title, close }: { title: string; close: () => void }) {
  const input = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => input.current!.select(), []);
  const save = (): void => {
    if (input.current) rename(input.current.value); // else closed, which took the focus
    close();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    close();
  };
  return (
    <form class="title" onSubmit={(event) => (event.preventDefault(), save())}>
      <input ref={input} aria-label="Title" value={title} maxLength={200} onKeyDown={onKeyDown} onBlur={save} />
    </form>
  );
}

function Actions({ edit }: { edit: () => void }) {
  const menu = useRef<HTMLDivElement>(null);
  const run = (action: () => void) => () => {
    menu.current?.hidePopover();
    action();
  };
  const save = (): void => download(fileName(current.value!.title), asMarkdown(current.value!));
  return (
    <>
      <button type="button" class="icon" popovertarget="actions" aria-label="Conversation menu" title="Conversation menu">
        <Icon name="more" />
      </button>
      <div ref={menu} id="actions" class="menu" popover="auto">
        <button type="button" onClick={run(edit)}>Rename</button>
        <button type="button" onClick={run(save)}>Export as Markdown</button>
        <button type="button" class="danger" onClick={run(remove)}>Delete</button>
      </div>
    </>
  );
}
