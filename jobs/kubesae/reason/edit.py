"""Interventions: a layer's output x becomes x + delta_a * W_dec of one feature, and nothing else of x is touched.

    with Editor(Edit("ablate", 12845, 0.0), sae, special).on(module): ...

The SAE's reconstruction never stands in for x: its error would be an edit of its own. Where no token changes, the hook
returns the layer's output itself, so the logits are those without a hook to the bit.
Legend: B sequences, T tokens, R edited rows, D d_model.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from kubesae.model.inputs import hidden_states

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from kubesae.sae import Sae

Kind = Literal["ablate", "clamp", "scale", "add"]
KINDS: tuple[Kind, ...] = ("ablate", "clamp", "scale", "add")


@dataclass(frozen=True, slots=True)
class Edit:
    """What becomes of a feature's activation a: 0 (ablate), `value` (clamp), `value` * a (scale), a + `value` (add)."""

    kind: Kind
    feature: int
    value: float

    def change(self, a_R: Tensor) -> Tensor:
        """Return by how much activations [R] change."""
        if self.kind == "ablate":
            return -a_R
        if self.kind == "clamp":
            return self.value - a_R
        if self.kind == "scale":
            return (self.value - 1) * a_R
        return torch.full_like(a_R, self.value)


class Editor:
    """A hook that edits the unflagged tokens of a layer's output: not first positions, special tokens and padding."""

    def __init__(self, edit: Edit, sae: Sae, special: Sequence[int], direction_D: Tensor | None = None) -> None:
        """`direction_D`: what is added in place of the feature's decoder row, made as long as it: a control."""
        self._edit = edit
        self._sae = sae
        self._special = torch.tensor(sorted(special), dtype=torch.int64)
        own_D = sae.weights.W_dec_FD[edit.feature]
        norm = torch.linalg.vector_norm(own_D)
        self._direction_D = own_D if direction_D is None else direction_D / torch.linalg.vector_norm(direction_D) * norm
        self._rows_BT = torch.zeros(0, 0, dtype=torch.bool)

    def at(self, ids_BT: Tensor, position_BT: Tensor, mask_BT: Tensor) -> None:
        """Say which tokens the next forward pass is of, each one's position, and 0 in `mask_BT` for padding."""
        self._rows_BT = (position_BT > 0) & (mask_BT > 0) & ~torch.isin(ids_BT, self._special)

    @contextmanager
    def on(self, module: nn.Module) -> Iterator[None]:
        """Edit what `module` returns."""
        handle = module.register_forward_hook(self._hook, prepend=True)
        try:
            yield
        finally:
            handle.remove()

    def _hook(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        x_BTD = hidden_states(output)
        edited_BTD = self.edited(x_BTD)
        if edited_BTD is x_BTD:
            return output
        return (edited_BTD, *output[1:]) if isinstance(output, tuple) else edited_BTD

    def edited(self, x_BTD: Tensor) -> Tensor:
        """Return the layer's output with the edit; `x_BTD` itself where no token changes."""
        rows_BT = self._rows_BT.to(x_BTD.device)
        x_RD = x_BTD[rows_BT]
        if not len(x_RD):
            return x_BTD
        sae = self._sae
        x_on_sae_RD = x_RD.to(sae.weights.b_dec_D.device).float()
        code = sae.codes(x_on_sae_RD)
        own_N = code.features_N == self._edit.feature
        a_R = x_on_sae_RD.new_zeros(len(x_RD))
        a_R[code.rows_N[own_N]] = code.values_N[own_N].to(a_R.dtype)
        change_R = self._edit.change(a_R).to(x_BTD.device)
        changed_R = change_R != 0
        if not bool(changed_R.any()):
            return x_BTD
        step_RD = change_R[changed_R, None] * self._direction_D.to(x_BTD.device)
        x_RD[changed_R] = (x_RD[changed_R].float() + step_RD).to(x_BTD.dtype)
        out_BTD = x_BTD.clone()
        out_BTD[rows_BT] = x_RD
        return out_BTD
