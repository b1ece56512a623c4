import { Icon, IconButton } from "./icons";
import { conversations, currentId, open, streams } from "./state";

export function Sidebar({ close }: { close: () => void }) {
  const newest = [...conversations.value.values()].sort((one, other) => other.updated - one.updated);
  const go = (id: string) => (event: Event) => {
    event.preventDefault();
    open(id);
    close();
    requestAnimationFrame(() => document.querySelector<HTMLElement>("#input")?.focus());
  };
  return (
    <nav id="list" class="sidebar" aria-label="Conversations">
      <div class="sidebar-top">
        <span class="brand"><img src="/page/icon.svg" alt="" width="24" height="24" />arcmtp</span>
        <IconButton icon="close" label="Close the list" class="narrow-only" onClick={close} />
      </div>
      <a class="new" href="#" onClick={go("")}><Icon name="plus" />New conversation</a>
      <ul>
        {newest.map(({ id, title }) => (
          <li key={id}>
            <a href={`#${id}`} title={title} aria-current={id === currentId.value ? "page" : undefined} onClick={go(id)}>
              <span>{title}</span>
              {streams.value.has(id) && <span class="dot" role="img" aria-label="being written" />}
            </a>
          </li>
        ))}
      </ul>
      <p class="quiet">Conversations are kept in this browser only.</p>
    </nav>
  );
}
