"""Log-probabilities as OpenAI's text completions show them: four lists, with an item for each token."""

from collections.abc import Iterable, Sequence

from arcmtp.engine.results import Chunk
from arcmtp.engine.scores import Scores
from arcmtp.model.tokenizer import Detokenizer, Tokenizer
from arcmtp.serve.responses import TextLogprobs


class TextLogprobsLists:
    """The lists of a choice, which grow. Offsets count the characters of the text before a token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, skip_special=True)  # as the engine's text
        self._lists: TextLogprobs = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        self._offset = self._sent = 0

    def add_prompt(self, ids: Sequence[int], scores: Scores) -> None:
        """The tokens of a prompt, of which the first has no log-probability."""
        detokenizer = Detokenizer(self._tokenizer)
        self._add(ids[0], None, None, detokenizer)
        for token_id, logprob, top_ids, top_logprobs in zip(
            ids[1:], scores.logprobs.tolist(), scores.top_ids, scores.top_logprobs, strict=True
        ):
            found = top_ids >= 0
            top = zip(top_ids[found].tolist(), top_logprobs[found].tolist(), strict=True)
            self._add(token_id, logprob, top, detokenizer)
        self._offset += len(detokenizer.flush())

    def add(self, chunk: Chunk) -> None:
        """A generated token."""
        assert chunk.id is not None
        self._add(chunk.id, chunk.logprob, chunk.logprobs or (), self._detokenizer)

    def all(self) -> TextLogprobs | None:
        """All items; None if there are none."""
        return self._from(0)

    def unsent(self) -> TextLogprobs | None:
        """The items since the last call; None if there are none."""
        first, self._sent = self._sent, len(self._lists["tokens"])
        return self._from(first)

    def _add(
        self, token_id: int, logprob: float | None, top: Iterable[tuple[int, float]] | None, detokenizer: Detokenizer
    ) -> None:
        likeliest: dict[str, float] = {}
        for top_id, top_logprob in top or ():  # several tokens that are no whole characters may have one name
            likeliest.setdefault(self._name(top_id), top_logprob)
        lists = self._lists
        lists["tokens"].append(self._name(token_id))
        lists["token_logprobs"].append(logprob)
        lists["top_logprobs"].append(None if top is None else likeliest)
        lists["text_offset"].append(self._offset)
        self._offset += len(detokenizer.push(token_id))

    def _name(self, token_id: int) -> str:
        return self._tokenizer.token_bytes(token_id).decode(errors="replace")

    def _from(self, first: int) -> TextLogprobs | None:
        lists = self._lists
        if first == len(lists["tokens"]):
            return None
        return {
            "tokens": lists["tokens"][first:],
            "token_logprobs": lists["token_logprobs"][first:],
            "top_logprobs": lists["top_logprobs"][first:],
            "text_offset": lists["text_offset"][first:],
        }
