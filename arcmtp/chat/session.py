"""A session: messages and commands from a screen, answers to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from arcmtp.chat.conversation import Answer, Conversation
from arcmtp.chat.screen import Screen
from arcmtp.chat.transcript import load, save
from arcmtp.errors import ArcmtpError


class Session:
    """Runs until its screen has no more to read, or `/quit`."""

    def __init__(self, conversation: Conversation, screen: Screen) -> None:
        self._conversation, self._screen = conversation, screen
        self._over = False
        self._commands: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "/help": ("", "this list", self._help),
            "/reset": ("", "begin a new conversation; a system message stays", self._reset),
            "/system": ("TEXT", "the system message from now on; without TEXT none", self._system),
            "/regenerate": ("", "another answer in the place of the last one", self._regenerate),
            "/think": ("", "what the model thought before its last answer", self._think),
            "/stats": ("", "speed of the last answer, drafts, context", self._stats),
            "/save": ("FILE", "write the conversation as JSON messages", self._save),
            "/load": ("FILE", "go on from such a file", self._load),
            "/quit": ("", "the end, as Ctrl-D", self._quit),
        }

    def run(self) -> None:
        """Answer until the end. KeyboardInterrupt stops what was asked, and passes through while the screen reads."""
        while not self._over and (text := self._screen.read()) is not None:
            try:
                self._do(text)
            except ArcmtpError as error:
                self._screen.note(str(error))
            except KeyboardInterrupt:
                self._screen.note("stopped")

    def _do(self, text: str) -> None:
        if not text.strip():
            return
        if not text.startswith("/"):
            self._show(self._conversation.ask(text))
            return
        name, *rest = text.split(maxsplit=1)
        if name not in self._commands:
            raise ArcmtpError(f"no command {name}; /help lists them, and a message may begin with a space")
        argument, _, command = self._commands[name]
        if rest and not argument:
            raise ArcmtpError(f"{name} takes nothing behind it")
        if argument == "FILE" and not rest:
            raise ArcmtpError(f"{name} needs the name of a file")
        command(rest[0].strip() if rest else "")

    def _show(self, answer: Answer) -> None:
        screen, thoughts = self._screen, 0
        try:
            for kind, text in answer:
                if answer.reasoning_tokens > thoughts:
                    thoughts = answer.reasoning_tokens
                    screen.thinking(thoughts)
                if kind == "content":
                    screen.write(text)
        finally:
            screen.finish()
            self._conversation.keep(answer)
        if why := answer.ended_by:
            screen.note(why)

    def _help(self, _: str) -> None:
        lines = [f"{f'{name} {argument}':14} {text}" for name, (argument, text, _) in self._commands.items()]
        lines.append("Alt-Enter, or \\ at the end of a line, goes on in a new line. Ctrl-C stops an answer.")
        self._screen.show("\n".join(lines))

    def _reset(self, _: str) -> None:
        self._conversation.reset()

    def _system(self, text: str) -> None:
        self._conversation.system = text or None

    def _regenerate(self, _: str) -> None:
        self._show(self._conversation.ask_again())

    def _think(self, _: str) -> None:
        last = self._conversation.last
        self._screen.show(last.reasoning if last and last.reasoning else "no thoughts")

    def _stats(self, _: str) -> None:
        self._screen.show(statistics(self._conversation))

    def _save(self, name: str) -> None:
        messages = self._conversation.all_messages
        save(Path(name).expanduser(), messages)
        self._screen.note(f"{name}: {len(messages)} messages")

    def _load(self, name: str) -> None:
        self._conversation.replace(load(Path(name).expanduser()))
        self._screen.note(f"{name}: {len(self._conversation.all_messages)} messages")

    def _quit(self, _: str) -> None:
        self._over = True


def statistics(conversation: Conversation) -> str:
    """What `/stats` shows: of the last answer, and how much of the context is used."""
    answer, context = conversation.last, conversation.context
    if answer is None:
        return f"no answer yet; the context holds {context} tokens"
    s, waited = answer.result.statistics, answer.first_token_seconds
    first = "no token yet" if waited is None else f"first token after {waited:.2f} s"
    lines = [
        f"prompt {s.prompt_tokens} tokens, {s.cached_tokens} of them cached; {first}",
        f"answer {s.completion_tokens} tokens, {answer.reasoning_tokens} of them thoughts; "
        f"{s.decode_tokens_per_second:.1f} tokens/s",
        f"drafts: {s.draft}" if s.draft else "drafts: none",
        f"context {answer.context_used} of {context} tokens",
    ]
    return "\n".join(lines)
