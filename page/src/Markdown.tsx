import { useMemo, useRef } from "preact/hooks";
import { copyAndSay } from "./CopyButton";
import { toBlocks } from "./blocks";

/** A model's text. Of a text that grows only the blocks that change are rendered again. */
export function Markdown({ text }: { text: string }) {
  const known = useRef(new Map<string, TrustedHTML>());
  const blocks = useMemo(() => {
    const all = toBlocks(text, known.current);
    for (const [source, html] of known.current) if (!all.includes(html)) known.current.delete(source);
    return all;
  }, [text]);
  if (!blocks.length) return null;
  return (
    <div class="markdown" onClick={copyCode}>
      {blocks.map((html, index) => (
        <div key={index} dangerouslySetInnerHTML={{ __html: html as unknown as string }} />
      ))}
    </div>
  );
}

function copyCode({ target }: Event): void {
  if (target instanceof Element && target.matches(".copy")) {
    void copyAndSay(target.closest(".code")?.querySelector("pre")?.textContent ?? "");
  }
}
