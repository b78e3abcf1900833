"""What the networks are asked to get right."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hil.simpack.nets import STRIDES

# Face sizes (longer box side, px) each stride answers for; they overlap on purpose, so that a face
# near a limit is found at two strides and the suppression keeps the surer one.
LEVEL_RANGE = ((0.0, 80.0), (64.0, 176.0), (150.0, 1e9))
KEYPOINT_WEIGHT = 16.0  # SCRFD's is 0.1 on another scale: here recognition hangs on key points
BOX_WEIGHT = 2.0


def cells(height: int, width: int, stride: int) -> Any:
    """H*W x 2 pixel positions of the cells: column x stride, row x stride, no half."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).float() * stride


def detector_loss(maps: list[Any], boxes: Any, points: Any, sizes: Any) -> tuple[Any, Any]:
    """Loss and mean key-point error (share of the box side).

    `boxes` B x K x 4 px, `points` B x K x 10 px, `sizes` B x K the longer side in px, 0 for none.
    """
    score_sum, box_sum, point_sum = [], [], []
    positives = torch.zeros(())
    for level, stride in enumerate(STRIDES):
        raw = maps[level]
        flat = raw.flatten(2).transpose(1, 2)  # B x HW x 15
        grid = cells(raw.shape[2], raw.shape[3], stride)
        hit, near, which = _assign(grid, boxes, sizes, level, stride)
        target = torch.zeros(hit.shape)
        if hit.any():
            batch, cell = hit.nonzero(as_tuple=True)
            face = which[batch, cell]
            got = flat[batch, cell]
            overlap = _giou(grid[cell], got[:, 1:5] * stride, boxes[batch, face])
            box_sum.append((1.0 - overlap).sum())
            offsets = (points[batch, face] - grid[cell].repeat(1, 5)) / stride
            scale = stride / sizes[batch, face]
            error = (got[:, 5:] - offsets).abs() * scale[:, None]
            point_sum.append(error.mean(dim=1).sum())
            target[batch, cell] = overlap.detach().clamp(0.05, 1.0).sqrt()
            positives = positives + len(batch)
        score_sum.append(_quality_focal(flat[:, :, 0], target, near))
    count = positives.clamp(min=1.0)
    keypoint = sum(point_sum) / count if point_sum else torch.zeros(())
    box = sum(box_sum) / count if box_sum else torch.zeros(())
    loss = sum(score_sum) / count + BOX_WEIGHT * box + KEYPOINT_WEIGHT * keypoint
    return loss, keypoint


def _assign(grid: Any, boxes: Any, sizes: Any, level: int, stride: int) -> tuple[Any, Any, Any]:
    """For B x HW cells: is it positive, is it to be ignored, and which face it belongs to."""
    low, high = LEVEL_RANGE[level]
    middle = (boxes[:, :, :2] + boxes[:, :, 2:]) / 2  # B x K x 2
    apart = (grid[None, :, None, :] - middle[:, None]).abs().amax(dim=-1)  # B x HW x K
    mine = (sizes > low) & (sizes <= high)
    reach = torch.maximum(0.18 * sizes, torch.full_like(sizes, 0.75 * stride))
    inside = (apart < reach[:, None]) & mine[:, None]
    which = torch.where(inside, apart, torch.full_like(apart, 1e9)).argmin(dim=-1)
    hit = inside.any(dim=-1)
    ring = torch.maximum(0.38 * sizes, torch.full_like(sizes, 1.5 * stride))
    near = ((apart < ring[:, None]) & mine[:, None]).any(dim=-1)
    # A neighbouring level may see the face too. A far one must not: left free, stride 8 found small
    # faces inside large ones (one frame in four after 1,000 steps).
    neighbour = (sizes > 0.7 * low) & (sizes <= 1.4 * high) & (sizes > 0)
    near = near | ((apart < 0.25 * sizes[:, None]) & neighbour[:, None]).any(dim=-1)
    return hit, near & ~hit, which


def _quality_focal(logits: Any, target: Any, ignored: Any) -> Any:
    """Focal loss towards a target quality (0 for background), ignored cells left out."""
    sure = torch.sigmoid(logits)
    weight = (target - sure).detach().abs() ** 2
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight
    return loss[~ignored].sum()


def _giou(centre: Any, sides: Any, box: Any) -> Any:
    """Generalised overlap of predicted sides (left, top, right, bottom) and boxes, N."""
    x0, y0 = centre[:, 0] - sides[:, 0], centre[:, 1] - sides[:, 1]
    x1, y1 = centre[:, 0] + sides[:, 2], centre[:, 1] + sides[:, 3]
    area = (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)
    true = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    wide = torch.minimum(x1, box[:, 2]) - torch.maximum(x0, box[:, 0])
    high = torch.minimum(y1, box[:, 3]) - torch.maximum(y0, box[:, 1])
    shared = wide.clamp(min=0) * high.clamp(min=0)
    union = area + true - shared
    hull = (torch.maximum(x1, box[:, 2]) - torch.minimum(x0, box[:, 0])) * (
        torch.maximum(y1, box[:, 3]) - torch.minimum(y0, box[:, 1])
    )
    return shared / union - (hull - union) / hull


class MarginHead(nn.Module):  # type: ignore[misc]
    """Cosine margin classification plus the traits themselves, training only.

    The renderer knows every resident's traits, so the embedding is first asked to tell them
    (linearly), and the classes join when it can. From the start, 12,000 random centres drowned it:
    a trait error of 0.27 after 400 steps where guessing gives 0.33.
    """

    def __init__(self, size: int, people: int, traits: int, scale: float = 30.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(people, size) * 0.05)
        self.tell = nn.Linear(size, traits)
        self.scale = scale

    def forward(self, embedding: Any, who: Any, margin: float) -> Any:
        cosine = F.normalize(embedding) @ F.normalize(self.centres).t()
        cosine[torch.arange(len(who)), who] -= margin
        return F.cross_entropy(self.scale * cosine, who)

    def imprint(self, embeddings: Any, who: Any) -> None:
        """Start the centres at the mean direction of their people's embeddings so far."""
        means = torch.zeros_like(self.centres.data)
        means.index_add_(0, who, F.normalize(embeddings))
        self.centres.data.copy_(F.normalize(means))

    def trait_error(self, embedding: Any, traits: Any, weights: Any) -> Any:
        """Weighted mean squared error of the traits told from the embedding."""
        return (weights * (self.tell(embedding) - traits) ** 2).mean() / weights.mean()
