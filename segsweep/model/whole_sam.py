"""SAM as it was published: an image and prompts in, four masks and their rated quality out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from segsweep.model.sam_names import to_official

if TYPE_CHECKING:
    from segsweep.model.family import State
    from segsweep.model.heads.sam import SAMHead


class WholeSAM(nn.Module):
    """Image encoder, prompt encoder and whole mask decoder, under our names."""

    def __init__(self, backbone: nn.Module, head: SAMHead):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = head

    def forward(self, images: Tensor, **prompts: Tensor) -> tuple[Tensor, Tensor]:
        """One image (B, 3, H, W) for each of the prompts; see `decode`"""
        (embedding,) = self.backbone(images)
        return self.decode(embedding, (images.shape[2], images.shape[3]), **prompts)

    def decode(
        self, embedding: Tensor, size: tuple[int, int], **prompts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode image embeddings (B, C, h, w), each with its prompts, see `PromptEncoder.forward`.

        -> mask logits (B, 4, 4h, 4w), quality (B, 4). The first mask is that of prompts which leave
        no doubt, the others are what one point may mean: whole, part and part of it.
        """
        head = self.sem_seg_head
        places = head.prompt_encoder.pe_layer.grid(*embedding.shape[2:])
        told = head.prompt_encoder(size, **prompts)
        decoded = head.mask_decoder(embedding, places, *told)
        return decoded.masks, head.mask_decoder.quality(decoded)

    def official(self) -> State:
        """Return the state dict under the names of segment_anything: a whole file of it."""
        return to_official(self.state_dict())
