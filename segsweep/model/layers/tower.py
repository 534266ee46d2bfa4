"""Towers of convolutions that heads lead every level through."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def tower(inputs: int, channels: int, convs: int, groups: int) -> nn.Sequential:
    """Build `convs` times 3 x 3 convolution, group norm, ReLU, under mmdet's names `conv`, `gn`.

    (B, inputs, H, W) -> (B, channels, H, W)
    """
    layers = []
    for i in range(convs):
        conv = nn.Conv2d(channels if i else inputs, channels, 3, padding=1, bias=False)
        parts = {"conv": conv, "gn": nn.GroupNorm(groups, channels), "relu": nn.ReLU()}
        layers.append(nn.Sequential(OrderedDict(parts)))
    return nn.Sequential(*layers)
