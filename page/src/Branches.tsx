import { siblings, type Message } from "./conversation";
import { IconButton } from "./icons";
import { current, show, writing } from "./state";

/** Which of the messages in one place is shown, and the way to the others. */
export function Branches({ message }: { message: Message }) {
  const all = siblings(current.value!, message);
  const index = all.findIndex((other) => other.id === message.id);
  if (all.length < 2) return null;
  const step = (by: number) => () => show(all[index + by]!);
  return (
    <div class="branches" role="group" aria-label="Versions">
      <IconButton icon="previous" label="Earlier version" disabled={index === 0 || writing.value} onClick={step(-1)} />
      <span>{index + 1}/{all.length}</span>
      <IconButton icon="next" label="Later version" disabled={index === all.length - 1 || writing.value} onClick={step(1)} />
    </div>
  );
}
