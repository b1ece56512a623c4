// Lines on a grid of 24 units.

const PATHS = {
  menu: "M4 6h16M4 12h16M4 18h16",
  plus: "M12 5v14M5 12h14",
  settings: "M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4",
  more: "M6 12a.7.7 0 1 0-1.4 0 .7.7 0 0 0 1.4 0zM12.7 12a.7.7 0 1 0-1.4 0 .7.7 0 0 0 1.4 0zM19.4 12a.7.7 0 1 0-1.4 0 .7.7 0 0 0 1.4 0z",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  again: "M20 12a8 8 0 1 1-2.5-5.8M20 3v4h-4",
  previous: "M14 6l-6 6 6 6",
  next: "M10 6l6 6-6 6",
  close: "M6 6l12 12M18 6L6 18",
};

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

interface ButtonProps {
  icon: IconName;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  class?: string;
}

/** A button of an icon alone; the label is its name and tooltip. */
export function IconButton({ icon, label, onClick, disabled = false, class: extra = "" }: ButtonProps) {
  return (
    <button type="button" class={`icon ${extra}`} aria-label={label} title={label} disabled={disabled} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}
