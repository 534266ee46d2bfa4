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

    def forward(
        self,
        images: Tensor,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One prompt for each image, see `PromptEncoder` -> logits (B, 4, 4h, 4w), quality (B, 4)

        `images` (B, 3, H, W), (h, w) the grid of their embeddings. The first mask is that of
        prompts which leave no doubt, the others are the parts that one point may mean.
        """
        (embedding,) = self.backbone(images)
        prompts, decoder = self.sem_seg_head.prompt_encoder, self.sem_seg_head.mask_decoder
        size = (images.shape[2], images.shape[3])
        places = prompts.pe_layer.grid(*embedding.shape[2:])
        decoded = decoder(embedding, places, *prompts(size, points, labels, boxes, masks))
        return decoded.masks, decoder.quality(decoded)

    def official(self) -> State:
        """Return the state dict under the names of segment_anything: a whole file of it."""
        return to_official(self.state_dict())
