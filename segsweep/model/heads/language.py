"""Classes as texts: a text transformer, its embeddings, and their similarity to the queries'.

Letters beside those of segmenter.py: T templates, L tokens of a text, P channels of embeddings.
The classes are K + 1, the last of them the background. Module names are the official ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.base.terminal import watched
from segsweep.model.layers.attention import Attention
from segsweep.model.torch_parts import changes

CHUNK = 256  # texts that are encoded at once


class LayerNorm(nn.LayerNorm):
    """Layer norm in single precision, with the official program's epsilon."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-12)

    def forward(self, input: Tensor) -> Tensor:
        """(..., width) -> (..., width)"""
        return super().forward(input.float()).to(input.dtype)


class Block(nn.Module):
    """Self-attention and feed-forward with the norms first; GELU as x sigmoid(1.702 x)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor, blocked: Tensor) -> Tensor:
        """(N, L, width), blocked (L, L) True = not seen -> (N, L, width)"""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, blocked)
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](hidden * (1.702 * hidden).sigmoid())


class TextTransformer(nn.Module):
    """The text encoder of CLIP (Radford 2021): each token sees itself and those before it."""

    def __init__(self, vocab: int, context: int, width: int, heads: int, layers: int):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.token_embedding = nn.Embedding(vocab, width)
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_final = LayerNorm(width)
        self._draw(width, layers)

    def _draw(self, width: int, layers: int) -> None:
        """Draw the weights as CLIP does: of two texts that differ in a word, the ends differ."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        into = width**-0.5 * (2 * layers) ** -0.5  # what a block adds to the stream
        for name, parameter in self.resblocks.named_parameters():
            if name.endswith("in_proj_weight"):
                nn.init.normal_(parameter, std=width**-0.5)
            elif name.endswith("c_fc.weight"):
                nn.init.normal_(parameter, std=(2 * width) ** -0.5)
            elif name.endswith("proj.weight"):
                nn.init.normal_(parameter, std=into)
            elif "ln_" not in name:
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (N, L) -> states (N, L, width)"""
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        blocked = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        for block in self.resblocks:
            x = block(x, blocked)
        return self.ln_final(x)


class Texts(nn.Module):
    """Texts that embeddings are compared with."""

    logit_scale: nn.Parameter

    def similarity(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """Scaled cosines, in single precision. (..., P), texts (K+1, P) -> logits (..., K+1)"""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.logit_scale.exp() * F.linear(unit(embeddings), text.float())


class LanguageEncoder(Texts):
    """Embeddings of the class texts, and the logits of embeddings that are compared with them.

    Where no weight of it trains, every text is encoded once. `train_ids` and `eval_ids` hold the
    texts in their templates, (K+1, T, L) int64; the end token has the largest id.
    """

    train_ids: Tensor
    eval_ids: Tensor
    drawable: Tensor | None  # every text of training (K+1, T, P)
    average: Tensor | None  # of every text of evaluation (K+1, P)

    def __init__(
        self,
        train_ids: Tensor,
        eval_ids: Tensor,
        vocab: int,
        context: int,
        width: int,
        heads: int,
        layers: int,
        proj: int,
    ):
        super().__init__()
        self.lang_proj = nn.Parameter(torch.empty(width, proj))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())  # as CLIP begins
        self.lang_encoder = TextTransformer(vocab, context, width, heads, layers)
        nn.init.normal_(self.lang_proj, std=width**-0.5)
        self.register_buffer("train_ids", train_ids, persistent=False)
        self.register_buffer("eval_ids", eval_ids, persistent=False)
        self.register_buffer("drawable", None, persistent=False)
        self.register_buffer("average", None, persistent=False)
        self._encoded_with: list[tuple[int, int]] = []  # identity and version of the weights

    def forward(self, draw: bool) -> Tensor:
        """Embeddings of the classes, each of length 1 -> (K+1, P)

        With `draw` one template per class, from torch's global generator, as for one step of
        training; else the average of all templates.
        """
        if not draw:
            return self._tables()[1]
        count, templates = self.train_ids.shape[:2]
        drawn = torch.arange(count), torch.randint(templates, (count,))
        return self.encode(self.train_ids[drawn]) if self._trains() else self._tables()[0][drawn]

    def encode(self, ids: Tensor) -> Tensor:
        """Token ids (N, L) -> embeddings of the texts (N, P), each of length 1"""
        end = ids.argmax(-1)  # nothing behind it is seen
        states = self.lang_encoder(ids[:, : int(end.max()) + 1])
        return unit(states[torch.arange(len(ids), device=ids.device), end] @ self.lang_proj)

    def train(self, mode: bool = True) -> LanguageEncoder:
        """Set the mode; what trains is encoded anew (fused optimizers do not count versions)."""
        if self._trains():
            self._encoded_with = []
        return super().train(mode)

    def _weights(self) -> list[nn.Parameter]:
        """All parameters that embeddings of texts depend on."""
        return [p for name, p in self.named_parameters() if name != "logit_scale"]

    def _trains(self) -> bool:
        return any(parameter.requires_grad for parameter in self._weights())

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Texts of training (K+1, T, P) and average of evaluation (K+1, P), without gradient.

        They are kept until a weight changes. Tensors of inference mode would not serve training.
        """
        weights = [(id(p), changes(p)) for p in self._weights()]
        if self.drawable is None or self.average is None or weights != self._encoded_with:
            autocast = torch.autocast(self.lang_proj.device.type, enabled=False)
            with torch.inference_mode(False), torch.no_grad(), autocast:
                same = torch.equal(self.train_ids, self.eval_ids)
                self.drawable = self._encode_all(self.train_ids)
                mean = (self.drawable if same else self._encode_all(self.eval_ids)).mean(1)
                self.average = mean / mean.norm(dim=-1, keepdim=True)
            self._encoded_with = weights
        return self.drawable, self.average

    def _encode_all(self, ids: Tensor) -> Tensor:
        """Token ids (K+1, T, L) -> embeddings (K+1, T, P)"""
        chunks = ids.flatten(0, 1).split(CHUNK)
        shown = watched(chunks, len(chunks), "class texts")
        return torch.cat([self.encode(chunk) for chunk in shown]).unflatten(0, ids.shape[:2])


class KnownTexts(Texts):
    """Stands for a language encoder once its classes are fixed: it holds their embeddings only."""

    text: Tensor

    def __init__(self, encoder: LanguageEncoder) -> None:
        super().__init__()
        self.logit_scale = encoder.logit_scale
        with torch.no_grad():
            self.register_buffer("text", encoder(draw=False).clone())

    def forward(self, draw: bool) -> Tensor:
        """Embeddings of the classes -> (K+1, P)"""
        return self.text


def unit(x: Tensor) -> Tensor:
    """Scale vectors (..., P) to length 1, in single precision; a zero vector stays zero."""
    x = x.float()
    return x / (x.norm(dim=-1, keepdim=True) + 1e-7)
