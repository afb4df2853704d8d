"""Run a Hugging Face causal language model on rows, in batches sorted by length.

Greedy and sampled decoding are one short loop. What the prompts of a batch have in common is computed once
(`decoding`), and rows that have stopped leave the batch. Each row samples from its own random stream, so its random
draws do not depend on the other rows of its batch.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from potstill.components.chat.format import ChatFormat
from potstill.components.runtimes import Answer, OnAnswers, OnAsk, Sampling
from potstill.components.runtimes.decoding import decoding
from potstill.components.runtimes.journaled import AskedTogether
from potstill.core.memory import keep_freed_memory
from potstill.core.progress import progress_bar
from potstill.core.records import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Continuation", "HFRuntime"]


@dataclass(frozen=True)
class Continuation:
    """What a model adds to a prompt.

    ids         token ids, including the end token if the model `stopped` by itself
    log_probs   ln of the probability with which each was sampled; 0 where the likeliest is taken
    own         ln of the model's own probability of each, at temperature 1
    """

    ids: list[int]
    log_probs: list[float]
    own: list[float]
    stopped: bool


class HFRuntime:
    """Runs a loaded model.

    Args:
        model: in evaluation mode on its device.
        chat: its tokenizer and template.
        context: maximum number of tokens of prompt and answer together.
        batch_size: maximum number of rows that are decoded together.
        by_length: whether prompts of similar length are decoded together, which is faster. Otherwise the batches are
            made in the order of the rows, so that rows at the end do not change the batches of those before.
    """

    def __init__(
        self, model: PreTrainedModel, chat: ChatFormat, context: int, batch_size: int = 64, *, by_length: bool = True
    ) -> None:
        keep_freed_memory()
        self.model = model.eval()
        self.chat = chat
        self.context = context
        self.batch_size = batch_size
        self.by_length = by_length

    def answer(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        label: str,
        on_answers: OnAnswers | None = None,
        on_ask: OnAsk | None = None,
    ) -> list[Answer]:
        """See `Runtime` and `Teacher`."""
        prompts = [self.chat.prompt_ids(row) for row in rows]
        answers: dict[int, Answer] = {}
        with progress_bar(label, len(rows)) as ticker:
            for batch in self._batches(prompts):
                if on_ask:
                    on_ask(batch)
                seeds = [_row_seed(rows[i], sampling.seed) for i in batch]
                begun = time.monotonic()
                outs = self.continue_ids([prompts[i] for i in batch], seeds, sampling)
                seconds = (time.monotonic() - begun) / len(batch)
                for index, out in zip(batch, outs, strict=True):
                    ids = out.ids[:-1] if out.stopped else out.ids
                    text = self.chat.decode(ids, after=prompts[index])
                    answers[index] = Answer(
                        text,
                        "stop" if out.stopped else "length",
                        len(prompts[index]),
                        len(ids),
                        seconds,
                        log_prob=math.fsum(out.own) if out.ids else None,
                    )
                if on_answers:
                    on_answers([(index, answers[index]) for index in batch])
                ticker.advance(len(batch))
        return [answers[i] for i in range(len(rows))]

    def requests(self, rows: Sequence[Row], sampling: Sampling) -> list[AskedTogether]:
        """See `Teacher`: the batches. All but the last are full, so the others stay the same without some of them."""
        prompts = [self.chat.prompt_ids(row) for row in rows]
        common = {"stop": sorted(self.chat.stop_ids), "temperature": sampling.temperature}
        found = []
        for batch in self._batches(prompts):
            sent = [prompts[i] for i in batch]
            request = common | {"prompts": sent, "budget": self._budget(max(map(len, sent)), sampling)}
            if sampling.temperature > 0:
                seeds = [_row_seed(rows[i], sampling.seed) for i in batch]
                request |= {"top_p": sampling.top_p, "seeds": seeds}
            found.append(AskedTogether(batch, request))
        return found

    def _batches(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Prompts of similar length together, or in their order."""
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]) if self.by_length else 0, i))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _budget(self, width: int, sampling: Sampling) -> int:
        """Maximum number of new tokens after prompts that are `width` tokens long."""
        return max(0, min(sampling.max_new_tokens, self.context - width))

    @torch.inference_mode()
    def continue_ids(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> list[Continuation]:
        """Decode a batch of prompts, each with a random stream from its own seed."""
        streams = [torch.Generator().manual_seed(s) for s in seeds]
        outs = [Continuation([], [], [], False) for _ in prompts]
        alive = list(range(len(prompts)))
        budget = self._budget(max(map(len, prompts)), sampling)
        if not budget:
            return outs
        with decoding(self.model, prompts, self.chat.eos_id) as rows:
            for step in range(budget):
                logits_BV = rows.logits_BV[:, : self.chat.vocab_size].float().cpu()
                chosen = _choose(logits_BV, [streams[i] for i in alive], sampling)
                own = logits_BV[range(len(chosen)), [token for token, _ in chosen]] - logits_BV.logsumexp(-1)
                keep: list[int] = []
                for place, ((token, log_prob), own_log_prob) in enumerate(zip(chosen, own.tolist(), strict=True)):
                    out = outs[alive[place]]
                    out.ids.append(token)
                    out.log_probs.append(log_prob)
                    out.own.append(own_log_prob)
                    if token in self.chat.stop_ids:
                        outs[alive[place]] = replace(out, stopped=True)
                    else:
                        keep.append(place)
                if not keep or step == budget - 1:
                    break
                if len(keep) < len(alive):
                    keep = _without_gaps(keep)
                    rows.keep(keep)
                    alive = [alive[place] for place in keep]
                rows.feed([chosen[place][0] for place in keep])
        return outs

    def log_probs_at(self, ids: Sequence[int], positions: Sequence[int]) -> Tensor:
        """`log_probs` of the tokens at these positions, in rising order."""
        return self.log_probs(ids, positions[0])[[position - positions[0] for position in positions]]

    @torch.inference_mode()
    def log_probs(self, ids: Sequence[int], first: int) -> Tensor:
        """Log-probabilities (nats, fp32) of each next token from position `first` on: (len(ids) - first, V).

        Row r is the distribution of token `first + r` given all before it.
        """
        logits_SV = self.model(input_ids=torch.tensor([ids], device=self.model.device), use_cache=False).logits[0]
        return torch.log_softmax(logits_SV[first - 1 : len(ids) - 1, : self.chat.vocab_size].float(), dim=-1).cpu()


def _row_seed(row: Row, seed: int) -> int:
    return int(hashlib.sha256(f"{seed}\0{row.row_id}".encode()).hexdigest()[:15], 16)


def _without_gaps(keep: list[int]) -> list[int]:
    """The same places in an order in which most of them stay where they are: the last ones fill the gaps."""
    count = len(keep)
    last = iter([place for place in keep if place >= count])
    kept = set(keep)
    return [place if place in kept else next(last) for place in range(count)]


def _choose(logits_BV: Tensor, streams: list[torch.Generator], sampling: Sampling) -> list[tuple[int, float]]:
    """Next token of each row, the likeliest or one sampled from the nucleus, and ln of its probability."""
    if sampling.temperature == 0:
        return [(int(i), 0.0) for i in logits_BV.argmax(-1)]
    probabilities_BV = torch.softmax(logits_BV / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True)
        outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= sampling.top_p
        probabilities_BV = torch.zeros_like(probabilities_BV).scatter(
            1, order_BV, sorted_BV.masked_fill(outside_BV, 0.0)
        )
    drawn = [int(torch.multinomial(p, 1, generator=g)) for p, g in zip(probabilities_BV, streams, strict=True)]
    log_B = (probabilities_BV[range(len(drawn)), drawn] / probabilities_BV.sum(-1)).log()
    return list(zip(drawn, log_B.tolist(), strict=True))
