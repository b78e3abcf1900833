"""The three networks, in torch. Plain 3 x 3 convolutions: fast on any processor."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

STRIDES = (8, 16, 32)


def conv(into: int, out: int, stride: int = 1) -> Any:
    """3 x 3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


class Residual(nn.Module):  # type: ignore[misc]
    """Two 3 x 3 convolutions with a way round them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.second(self.first(x)))


class Detector(nn.Module):  # type: ignore[misc]
    """Pyramid detector: input N x 3 x H x W, (pixel - 127.5) / 128, RGB.

    `forward` gives for each stride a raw N x 15 x H/stride x W/stride map: score logit, distances
    left, top, right, bottom of the cell's corner, 5 x (x, y) key-point offsets, all in strides.
    """

    def __init__(self, neck: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 2), conv(16, 32, 2))
        self.stage8 = nn.Sequential(conv(32, 48, 2), Residual(48))
        self.stage16 = nn.Sequential(conv(48, 64, 2), Residual(64), conv(64, 64))
        self.stage32 = nn.Sequential(conv(64, 96, 2), Residual(96), conv(96, 96))
        self.sides = nn.ModuleList([nn.Conv2d(w, neck, 1) for w in (48, 64, 96)])
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.heads = nn.ModuleList(
            [nn.Sequential(conv(neck, neck), conv(neck, neck)) for _ in STRIDES]
        )
        self.outs = nn.ModuleList([nn.Conv2d(neck, 15, 1) for _ in STRIDES])
        for out in self.outs:
            nn.init.normal_(out.weight, std=0.01)
            nn.init.zeros_(out.bias)
            nn.init.constant_(out.bias[:1], -4.0)
            nn.init.constant_(out.bias[1:5], 2.0)

    def forward(self, x: Any) -> list[Any]:
        c8 = self.stage8(self.stem(x))
        c16 = self.stage16(c8)
        c32 = self.stage32(c16)
        p32 = self.sides[2](c32)
        p16 = self.sides[1](c16) + self.up(p32)
        p8 = self.sides[0](c8) + self.up(p16)
        maps = []
        for level, feature in enumerate((p8, p16, p32)):
            head = self.heads[level](feature)
            with torch.autocast("cpu", enabled=False):  # the offsets need float32
                maps.append(self.outs[level](head.float()))
        return maps


class Recogniser(nn.Module):  # type: ignore[misc]
    """N x 3 x 112 x 112, (pixel - 127.5) / 127.5, RGB -> N x 128, compared by cosine."""

    def __init__(self, size: int = 128) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 24, 2), conv(24, 32), conv(32, 64, 2), Residual(64), Residual(64),
            conv(64, 96, 2), Residual(96), Residual(96), conv(96, 128, 2), conv(128, 128),
        )  # fmt: skip
        self.pool = nn.Conv2d(128, 128, 7, groups=128, bias=False)
        self.norm = nn.BatchNorm2d(128)
        self.embed = nn.Linear(128, size)

    def forward(self, x: Any) -> Any:
        pooled = self.norm(self.pool(self.body(x)))
        with torch.autocast("cpu", enabled=False):
            return self.embed(pooled.float().flatten(1))


class PadNet(nn.Module):  # type: ignore[misc]
    """N x 3 x 96 x 96, pixel / 255, RGB -> N x 3 logits: live, print, replay."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 16), conv(16, 24, 2), conv(24, 32, 2), Residual(32), conv(32, 48, 2),
            conv(48, 48), conv(48, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(64, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.drop(self.body(x).float()))
