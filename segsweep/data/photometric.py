"""Random changes of colours alone: mmseg's PhotoMetricDistortion (Liu 2016, SSD).

Each of brightness, contrast, saturation and hue is changed with a chance of one half; contrast, as
often first as last of the other three, is what torchvision calls brightness: a factor on pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

SHIFT = 32  # of brightness, of 255
FACTORS = (0.5, 1.5)  # on contrast, on saturation
TURN, CIRCLE = 18, 180  # of hue, in the units of OpenCV


def distorted(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change the colours of an image at random. (3, h, w) uint8 RGB -> (3, h, w) uint8"""
    coins = (torch.rand(5, generator=generator) < 0.5).tolist()
    brightness, contrast, saturation, hue, late = coins
    shift, *parts, turn = torch.rand(4, generator=generator).tolist()
    low, high = FACTORS
    factor, strength = (low + (high - low) * part for part in parts)
    if brightness:
        image = brightened(image, SHIFT * (2 * shift - 1))
    if contrast and not late:
        image = F.adjust_brightness(image, factor)
    if saturation:
        image = saturated(image, strength)
    if hue:  # by whole units, from -TURN to TURN - 1
        image = F.adjust_hue(image, (int(2 * TURN * turn) - TURN) / CIRCLE)
    if contrast and late:
        image = F.adjust_brightness(image, factor)
    return image


def brightened(image: Tensor, shift: float) -> Tensor:
    """Add to every pixel. (3, h, w) uint8 -> (3, h, w) uint8"""
    return (image.float() + shift).clamp(0, 255).to(torch.uint8)


def saturated(image: Tensor, factor: float) -> Tensor:
    """Multiply S of HSV, at most to 1; hue and V stay. (3, h, w) uint8 -> (3, h, w) uint8

    S is the largest distance of a channel to V, the largest channel, in parts of V.
    """
    pixels = image.float()
    value = pixels.amax(0)
    distance = value - pixels
    factors = (value / distance.amax(0).clamp(min=1)).clamp(max=factor)
    return (value - distance * factors).round().to(torch.uint8)
