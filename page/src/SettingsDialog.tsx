import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Dialog } from "./Dialog";
import { DEFAULTS, MAX_DRAFTS, NUMBERS, type Settings } from "./settings";
import { enterKey, key, props, settings } from "./state";

const change = (part: Partial<Settings>): void => void (settings.value = { ...settings.value, ...part });

/** Changes apply at once, to the next answer. */
export function SettingsDialog({ isOpen, close }: { isOpen: boolean; close: () => void }) {
  const { systemPrompt, draft, thinking } = settings.value;
  const resets = useSignal(0); // a form that is laid anew shows the defaults
  const reset = (): void => {
    settings.value = DEFAULTS;
    resets.value += 1;
  };
  const lengths = Array.from({ length: MAX_DRAFTS + 1 }, (_, length) => length);
  return (
    <Dialog title="Settings" isOpen={isOpen} close={close}>
      <form key={resets.value} noValidate onSubmit={(event) => (event.preventDefault(), close())}>
        <label>
          <span>System prompt</span>
          <textarea
            rows={3} value={systemPrompt} placeholder="None"
            onInput={(event) => change({ systemPrompt: event.currentTarget.value })}
          />
        </label>
        <div class="fields">
          {NUMBERS.map((field) => <NumberInput key={field.name} field={field} />)}
          <Select
            label="Draft length" value={String(draft)}
            onChange={(value) => change({ draft: value === "" || value === "auto" ? value : Number(value) })}
          >
            <option value="">Server: {props.value?.draft}</option>
            <option value="auto">Automatic</option>
            {lengths.map((length) => <option key={length} value={length}>{length || "None"}</option>)}
          </Select>
          <Select label="Thinking" value={thinking} onChange={(value) => change({ thinking: value as Settings["thinking"] })}>
            <option value="">Default</option>
            <option value="on">On</option>
            <option value="off">Off</option>
          </Select>
        </div>
        <KeyInput />
        <p class="quiet">An empty field leaves the choice to the server.</p>
        <p class="dialog-end">
          <button type="button" onClick={reset}>Reset</button>
          <button type="submit" class="primary">Done</button>
        </p>
      </form>
      <p class="quiet foot">
        arcmtp {props.value?.version} · <a href="/docs">API</a> · <a href="/page/NOTICE.txt">Licences</a>
      </p>
    </Dialog>
  );
}

function NumberInput({ field }: { field: (typeof NUMBERS)[number] }) {
  const { name, label, min, max, step } = field;
  const wrong = useSignal("");
  const onInput = (event: { currentTarget: HTMLInputElement }): void => {
    const input = event.currentTarget;
    const value = input.valueAsNumber;
    const empty = input.value === "" && !input.validity.badInput;
    const right = value >= min && value <= max && (step < 1 || Number.isInteger(value));
    wrong.value = empty || right ? "" : `${step < 1 ? "From" : "Whole, from"} ${min} to ${max}`;
    const { [name]: _, ...others } = settings.value.numbers;
    change({ numbers: right ? { ...others, [name]: value } : others });
  };
  const preset = props.value?.sampling[name];
  const none = name === "max_tokens" ? "No limit" : name === "seed" ? "Random" : "";
  return (
    <label>
      <span>{label}</span>
      <input
        type="number" min={min} max={max} step={step} defaultValue={settings.peek().numbers[name] ?? ""}
        placeholder={String(preset ?? none)} aria-invalid={wrong.value !== ""} onInput={onInput}
      />
      {wrong.value && <span class="problem" role="alert">{wrong.value}</span>}
    </label>
  );
}

function Select({ label, value, onChange, children }: {
  label: string; value: string; onChange: (value: string) => void; children: ComponentChildren;
}) {
  return (
    <label>
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>{children}</select>
    </label>
  );
}

function KeyInput() {
  return (
    <label>
      <span>API key</span>
      <input
        type="password" autocomplete="off" defaultValue={key.peek()} placeholder="None"
        onChange={(event) => enterKey(event.currentTarget.value)}
      />
    </label>
  );
}
