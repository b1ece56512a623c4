import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { IconButton } from "./icons";

interface DialogProps {
  title: string;
  isOpen: boolean;
  close: () => void;
  children: ComponentChildren;
}

/** A modal dialog: the browser keeps the focus inside, closes it on Escape, and gives the focus back. */
export function Dialog({ title, isOpen, close, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    if (isOpen) dialog.current!.showModal();
    else dialog.current!.close();
  }, [isOpen]);
  return (
    <dialog ref={dialog} aria-label={title} onClose={close}>
      {isOpen && (
        <>
          <div class="dialog-top">
            <h2>{title}</h2>
            <IconButton icon="close" label="Close" onClick={close} />
          </div>
          {children}
        </>
      )}
    </dialog>
  );
}
