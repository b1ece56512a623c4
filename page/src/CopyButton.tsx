import { copy } from "./browser";
import { IconButton } from "./icons";
import { notice } from "./state";

export function CopyButton({ text }: { text: string }) {
  return <IconButton icon="copy" label="Copy" onClick={() => void copyAndSay(text)} />;
}

export async function copyAndSay(text: string): Promise<void> {
  const done = await copy(text);
  notice.value = { text: done ? "Copied." : "The browser does not let the page copy: select the text.", isBrief: done };
}
