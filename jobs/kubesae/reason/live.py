"""The whole model, live: batched generation with its key-value cache, every generated token's activation kept.

    live = LiveModel(model, depth=30, layer=12)
    answers = live.generate(prompts, Sampling(most=256, stop={2}))

Plain forward hooks, no wrapper library. Prompts of a batch are padded on the left and masked, with positions counted
from each one's first token; models that take no positions get one prompt at a time.
Legend: B prompts, T tokens, D d_model, V vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from kubesae.model.inputs import Batch, hidden_states, inputs_of
from kubesae.model.truncate import find_layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from kubesae.reason.edit import Editor

    Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        most: tokens of an answer, at most.
        stop: tokens that end it.
        temperature: 0: always the likeliest token.
        seed: what else is drawn, together with a prompt's own number and the token's: never with the batch.

    """

    most: int
    stop: frozenset[int]
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote: `ids_T`, uint32 [T], the token that ended it included; `x_TD`: the layer's output on each."""

    ids_T: Ids
    x_TD: Tensor


class _Enough(Exception):  # noqa: N818 - it is no error: the layer that was asked for has passed
    """Ends a forward pass."""


class LiveModel:
    """A causal language model with a hook on one layer."""

    def __init__(self, model: nn.Module, depth: int, layer: int) -> None:
        """Hook `layer` of `model`, which has `depth` layers."""
        self.model = model
        self.layer = layer
        self.module = find_layers(model, depth)[layer]
        self.device = next(model.parameters()).device
        self.captured = torch.zeros(0)
        """the layer's output [B, T, D] in the last forward pass"""
        self._stops = False
        self.module.register_forward_hook(self._capture)
        self._takes = inspect.signature(model.forward).parameters.keys()
        self._cache = "cache" if "cache" in self._takes else "past_key_values"  # as older releases call it

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Tokens that end an answer, as the model's generation settings name them."""
        found = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        return frozenset(found if isinstance(found, list) else [] if found is None else [found])

    def _capture(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.captured = hidden_states(output)
        if self._stops:
            raise _Enough

    @torch.inference_mode()
    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, int, Tensor]]:
        """Yield each batch's number, the layer and its output [B, T, D]; later layers are not computed."""
        for number, batch in enumerate(batches):
            self._stops = True
            try:
                self.model(**inputs_of(batch, self.model, self.device, torch.float32))
            except _Enough:
                pass
            finally:
                self._stops = False
            yield number, self.layer, self.captured

    def generate(
        self, prompts: Sequence[Ids], numbers: Sequence[int], sampling: Sampling, editor: Editor | None = None
    ) -> list[Answer]:
        """Return the answers to prompts.

        Args:
            prompts: token ids of each, at least one.
            numbers: the prompt's own number, with which it is sampled.
            sampling: how.
            editor: changes the layer's output, in prompts and answers.

        """
        step = len(prompts) if "position_ids" in self._takes else 1
        answers = []
        for at in range(0, len(prompts), step):
            answers += self._together(prompts[at : at + step], numbers[at : at + step], sampling, editor)
        return answers

    @torch.inference_mode()
    def _together(
        self, prompts: Sequence[Ids], numbers: Sequence[int], sampling: Sampling, editor: Editor | None
    ) -> list[Answer]:
        ids_BT, mask_BT = padded_left(prompts)
        position_BT = (mask_BT.cumsum(1) - 1).clamp_min(0)
        written: list[list[int]] = [[] for _ in prompts]
        outputs: list[list[Tensor]] = [[] for _ in prompts]
        open_rows = list(range(len(prompts)))
        with nullcontext() if editor is None else editor.on(self.module):
            logits_BV, cache = self._forward(ids_BT, mask_BT, position_BT, None, editor)
            while open_rows:
                chosen = dict(zip(open_rows, _choose(logits_BV, open_rows, numbers, written, sampling), strict=True))
                ids_BT = torch.tensor([[chosen.get(row, 0)] for row in range(len(prompts))])
                mask_BT = F.pad(mask_BT, (0, 1), value=1)
                position_BT = position_BT[:, -1:] + 1
                logits_BV, cache = self._forward(ids_BT, mask_BT, position_BT, cache, editor)
                for row, token in chosen.items():
                    written[row].append(token)
                    outputs[row].append(self.captured[row, -1].clone())
                open_rows = [row for row in open_rows if not _ended(written[row], sampling)]
        return [Answer(np.array(ids, np.uint32), torch.stack(x)) for ids, x in zip(written, outputs, strict=True)]

    def _forward(
        self, ids_BT: Tensor, mask_BT: Tensor, position_BT: Tensor, cache: Any, editor: Editor | None
    ) -> tuple[Tensor, Any]:
        """Return the logits [B, V] after the last token of each row, and the cache."""
        if editor is not None:
            editor.at(ids_BT, position_BT, mask_BT[:, -ids_BT.shape[1] :])
        extra: dict[str, Any] = {self._cache: cache}
        if "position_ids" in self._takes:
            extra["position_ids"] = position_BT.to(self.device)
        if "logits_to_keep" in self._takes:
            extra["logits_to_keep"] = 1
        output = self.model(
            input_ids=ids_BT.to(self.device),
            attention_mask=mask_BT.to(self.device),
            use_cache=True,
            **extra,
        )
        return output.logits[:, -1], getattr(output, self._cache)

    @torch.inference_mode()
    def losses(self, ids_T: Ids, first: int, editor: Editor | None = None) -> npt.NDArray[np.float64]:
        """Return the cross-entropy, in nats, of each token of a sequence from position `first` (above 0) on."""
        logits_TV = self.logits(ids_T, editor)[first - 1 : -1]
        targets_T = torch.from_numpy(ids_T[first:].astype(np.int64)).to(logits_TV.device)
        return F.cross_entropy(logits_TV.float(), targets_T, reduction="none").double().cpu().numpy()

    @torch.inference_mode()
    def logits(self, ids_T: Ids, editor: Editor | None = None) -> Tensor:
        """Return the logits [T, V] of a sequence."""
        ids_1T = torch.from_numpy(ids_T.astype(np.int64))[None]
        with nullcontext() if editor is None else editor.on(self.module):
            if editor is not None:
                editor.at(ids_1T, torch.arange(len(ids_T))[None], torch.ones_like(ids_1T))
            found: Tensor = self.model(input_ids=ids_1T.to(self.device), use_cache=False).logits[0]
        return found


def padded_left(prompts: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Return ids and mask [B, T], int64, of prompts that end together; 0 stands in the padding."""
    width = max(map(len, prompts))
    ids_BT, mask_BT = torch.zeros(len(prompts), width, dtype=torch.int64), torch.zeros(len(prompts), width).long()
    for row, ids_T in enumerate(prompts):
        ids_BT[row, width - len(ids_T) :] = torch.from_numpy(ids_T.astype(np.int64))
        mask_BT[row, width - len(ids_T) :] = 1
    return ids_BT, mask_BT


def _ended(ids: list[int], sampling: Sampling) -> bool:
    return bool(ids) and (ids[-1] in sampling.stop or len(ids) >= sampling.most)


def _choose(
    logits_BV: Tensor, rows: Sequence[int], numbers: Sequence[int], written: Sequence[list[int]], sampling: Sampling
) -> list[int]:
    """Choose the next token of each of `rows`."""
    if sampling.temperature == 0:
        return [int(token) for token in logits_BV[list(rows)].float().argmax(1)]
    chosen = []
    for row in rows:
        shares_V = torch.softmax(logits_BV[row].double().cpu() / sampling.temperature, 0).cumsum(0)
        draw = _uniform(sampling.seed, numbers[row], len(written[row])) * float(shares_V[-1])
        chosen.append(min(int(torch.searchsorted(shares_V, draw, right=True)), len(shares_V) - 1))
    return chosen


def _uniform(*numbers: int) -> float:
    """Return a number from 0 to below 1 that belongs to these."""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:7], "little") / 2**56
