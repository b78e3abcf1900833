"""Train one network: `python -m hil.simpack.train detector|recogniser|pad`.

Seeded, a fixed number of steps, one thread. Pictures are rendered first (kept in `--cache` when
given), then trained on; the weights go to `--out`. Needs torch; nothing else in the product does.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from hil.residents import resident
from hil.residents.identity import NAMES, WEIGHTS
from hil.simpack import data
from hil.simpack.losses import MarginHead, detector_loss
from hil.simpack.nets import Detector, PadNet, Recogniser

SEED = 20240607
EMA = 0.998  # the exported weights are a running mean over about 500 steps
CLASSES_JOIN = 0.25  # share of the steps after which people are classes too
TRAIT_WEIGHT, MARGIN = 20.0, 0.3
PLAN: dict[str, dict[str, Any]] = {
    "detector": {"pictures": 14000, "steps": 5800, "batch": 24, "rate": 2e-3},
    "recogniser": {"people": 12000, "views": 6, "steps": 3100, "batch": 96, "rate": 2e-3},
    "pad": {"scenes": 7000, "crops": 4, "steps": 2000, "batch": 64, "rate": 2e-3},
}
Arrays = dict[str, NDArray[Any]]


def render_detector(plan: dict[str, Any]) -> Arrays:
    """Pictures, boxes (zeros: no face) and key points."""
    n, side = plan["pictures"], data.DETECTOR_SIZE
    out = {
        "images": np.zeros((n, side, side, 3), np.uint8),
        "boxes": np.zeros((n, 4), np.float32),
        "points": np.zeros((n, 5, 2), np.float32),
    }
    for i in range(n):
        seen = data.detector_picture(i)
        seed = i
        while seen.box is not None and _visible(seen.box, side) < 0.55:
            seed += n  # hardly in the frame: neither a face nor none; draw another
            seen = data.detector_picture(seed)
        out["images"][i] = seen.image
        if seen.box is not None and seen.keypoints is not None:
            out["boxes"][i], out["points"][i] = seen.box, seen.keypoints
    return out


def _visible(box: data.Floats, side: int) -> float:
    """Share of the box inside the picture."""
    inside = np.clip(box, 0, side)
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return float((inside[2] - inside[0]) * (inside[3] - inside[1])) / area


def render_recogniser(plan: dict[str, Any]) -> Arrays:
    """Aligned crops with a margin, their key points, whose they are."""
    people, views = plan["people"], plan["views"]
    side = data.CROP_SIZE + 2 * data.CROP_MARGIN
    images = np.zeros((people * views, side, side, 3), np.uint8)
    points = np.zeros((people * views, 5, 2), np.float32)
    for i in range(people * views):
        images[i], points[i] = data.recogniser_crop(i // views, i % views)
    return {"images": images, "points": points, "who": np.repeat(np.arange(people), views)}


def render_pad(plan: dict[str, Any]) -> Arrays:
    """Crops and classes."""
    crops, labels = [], []
    for seed in range(plan["scenes"]):
        some, label = data.pad_pictures(seed, plan["crops"])
        crops += some
        labels += [label] * len(some)
    return {"images": np.stack(crops), "labels": np.array(labels)}


RENDER: dict[str, Callable[[dict[str, Any]], Arrays]] = {
    "detector": render_detector,
    "recogniser": render_recogniser,
    "pad": render_pad,
}


class Run:
    """Optimiser, one-cycle rate and running mean of one training."""

    def __init__(self, net: Any, extra: Any, plan: dict[str, Any]) -> None:
        self.out: Path | None = plan.get("out")
        self.plan, self.note = plan, ""
        self.net = net.to(memory_format=torch.channels_last).train()
        self.mean = {k: v.clone() for k, v in net.state_dict().items()}
        groups = [{"params": list(net.parameters())}]
        if extra is not None:
            groups.append({"params": list(extra.parameters())})
        self.optimiser = torch.optim.AdamW(groups, lr=plan["rate"], weight_decay=0.02)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, plan["rate"], plan["steps"], pct_start=0.08
        )
        self.parameters = [p for group in groups for p in group["params"]]
        self.started, self.count = time.monotonic(), 0

    def step(self, loss: Any, note: str) -> None:
        """One step down the gradient; a line of progress every 200."""
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimiser.step()
        self.rate.step()
        self.count += 1
        self.note = f"loss {float(loss.detach()):.4f} {note}"
        keep = min(EMA, self.count / (self.count + 10.0))
        with torch.no_grad():
            for key, value in self.net.state_dict().items():
                if value.dtype.is_floating_point:
                    self.mean[key].lerp_(value, 1.0 - keep)
        if self.count % 200 == 0:
            spent = time.monotonic() - self.started
            if self.out is not None and self.count % 1000 == 0:
                self.save()
            print(f"{self.count} {spent:.0f}s {self.note}", flush=True)

    def save(self) -> None:
        """Write the running mean where `--out` says, and beside it how it came about."""
        if self.out is None:
            return
        torch.save(self.mean, self.out)
        told = {"seed": SEED, **{k: v for k, v in self.plan.items() if k != "out"}}
        told |= {"steps_done": self.count, "seconds": round(time.monotonic() - self.started)}
        told |= {"last": self.note, "torch": str(torch.__version__)}
        self.out.with_suffix(".json").write_text(json.dumps(told) + "\n", encoding="utf-8")


def to_tensor(images: NDArray[np.uint8], mean: float, std: float) -> Any:
    """N x H x W x 3 BGR -> N x 3 x H x W RGB floats."""
    rgb = np.ascontiguousarray(images[..., ::-1])
    tensor = torch.from_numpy(rgb).permute(0, 3, 1, 2).float()
    return ((tensor - mean) / std).contiguous(memory_format=torch.channels_last)


def train_detector(arrays: Arrays, plan: dict[str, Any], rng: np.random.Generator) -> Run:
    """The detector; one picture in three is a mosaic of four, half as large."""
    run = Run(Detector(), None, plan)
    for _ in range(plan["steps"]):
        images, boxes, points = _detector_batch(arrays, plan["batch"], rng)
        sides = boxes[:, :, 2:] - boxes[:, :, :2]
        with torch.autocast("cpu", torch.bfloat16):
            maps = run.net(to_tensor(images, 127.5, 128.0))
        sizes = torch.from_numpy(sides.max(axis=2))
        loss, error = detector_loss(maps, torch.from_numpy(boxes), torch.from_numpy(points), sizes)
        run.step(loss, f"key points {float(error.detach()):.4f}")
    return run


def _detector_batch(
    arrays: Arrays, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], data.Floats, data.Floats]:
    """`count` pictures with up to four faces each: images, B x 4 x 4 boxes, B x 4 x 10 points."""
    side = data.DETECTOR_SIZE
    images = np.zeros((count, side, side, 3), np.uint8)
    boxes, points = np.zeros((count, 4, 4), np.float32), np.zeros((count, 4, 10), np.float32)
    for i in range(count):
        chosen = rng.integers(len(arrays["boxes"]), size=4)
        tiles = 4 if rng.random() < 0.33 else 1
        half = side // 2
        for k in range(tiles):
            image, box, point = _turned(arrays, int(chosen[k]), rng)
            at = np.array([(k % 2) * half, (k // 2) * half])
            if tiles == 4:
                image = cv2.resize(image, (half, half), interpolation=cv2.INTER_AREA)
                box, point = box / 2 + np.tile(at, 2) * (box.any()), point / 2 + at
                if max(box[2] - box[0], box[3] - box[1]) < 12:
                    box = np.zeros(4, np.float32)  # too small to ask for
                images[i, at[1] : at[1] + half, at[0] : at[0] + half] = image
            else:
                images[i] = image
            boxes[i, k], points[i, k] = box, point.reshape(10)
    return images, boxes, points


def _turned(
    arrays: Arrays, index: int, rng: np.random.Generator
) -> tuple[Any, data.Floats, data.Floats]:
    """One stored picture, mirrored half of the time and brightened or dimmed."""
    image, box, point = (arrays[k][index] for k in ("images", "boxes", "points"))
    if rng.random() < 0.5:
        image, wide = image[:, ::-1], image.shape[1]
        if box.any():
            box = np.array([wide - box[2], box[1], wide - box[0], box[3]], np.float32)
        point = (point * (-1, 1) + (wide, 0))[[1, 0, 2, 4, 3]].astype(np.float32)
    gain = float(rng.uniform(0.7, 1.2))
    return cv2.convertScaleAbs(np.ascontiguousarray(image), alpha=gain), box, point


def perturb(
    image: NDArray[np.uint8], points: data.Floats, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The crop as key points with a detector's scatter would have aligned it, 112 x 112."""
    spread = abs(float(rng.normal(0.0, 0.05))) * data.EYE_DISTANCE
    loose = points + rng.normal(0.0, spread, (5, 2)) + rng.normal(0.0, 0.5 * spread, 2)
    turn = data.similarity(loose.astype(np.float32), data.TEMPLATE)
    crop = cv2.warpAffine(image, turn, (data.CROP_SIZE, data.CROP_SIZE))
    if rng.random() < 0.15:
        crop = data.recode(np.asarray(crop, np.uint8), rng)
    return cv2.convertScaleAbs(crop, alpha=float(rng.uniform(0.7, 1.15))).astype(np.uint8)


def train_recogniser(arrays: Arrays, plan: dict[str, Any], rng: np.random.Generator) -> Run:
    """The recogniser: first the traits, then also a cosine margin over all people."""
    people, join = plan["people"], int(CLASSES_JOIN * plan["steps"])
    traits = torch.tensor([resident(i).vector for i in range(people)], dtype=torch.float32)
    weights = torch.tensor(WEIGHTS, dtype=torch.float32)
    head = MarginHead(128, people, len(NAMES))
    run = Run(Recogniser(), head, plan)
    for step in range(plan["steps"]):
        if step == join:
            _imprint(run.net, head, arrays, plan)
        chosen = rng.integers(len(arrays["who"]), size=plan["batch"])
        crops = [perturb(arrays["images"][i], arrays["points"][i], rng) for i in chosen]
        who = torch.from_numpy(arrays["who"][chosen])
        with torch.autocast("cpu", torch.bfloat16):
            embedding = run.net(to_tensor(np.stack(crops), 127.5, 127.5))
        told = head.trait_error(embedding, traits[who], weights)
        loss, note = TRAIT_WEIGHT * told, f"traits {float(told.detach()):.4f}"
        if step >= join:
            named = head(embedding, who, MARGIN * min(1.0, (step - join) / join))
            loss, note = loss + named, f"{note} class {float(named.detach()):.3f}"
        run.step(loss, note)
    return run


@torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
def _imprint(net: Any, head: MarginHead, arrays: Arrays, plan: dict[str, Any]) -> None:
    """Centres from two views of everybody."""
    net.eval()
    rows = np.concatenate([np.arange(plan["people"]) * plan["views"] + k for k in (0, 1)])
    edge = data.CROP_MARGIN
    found = []
    for part in np.array_split(rows, len(rows) // 100):
        crops = arrays["images"][part][:, edge:-edge, edge:-edge]
        with torch.autocast("cpu", torch.bfloat16):
            found.append(net(to_tensor(crops, 127.5, 127.5)))
    head.imprint(torch.cat(found), torch.from_numpy(arrays["who"][rows]))
    net.train()


def train_pad(arrays: Arrays, plan: dict[str, Any], rng: np.random.Generator) -> Run:
    """The presentation-attack net: plain cross-entropy, mirrored and dimmed crops."""
    run = Run(PadNet(), None, plan)
    for _ in range(plan["steps"]):
        chosen = rng.integers(len(arrays["labels"]), size=plan["batch"])
        crops = []
        for i in chosen:
            crop = arrays["images"][i]
            crop = np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop
            crops.append(cv2.convertScaleAbs(crop, alpha=float(rng.uniform(0.75, 1.15))))
        labels = torch.from_numpy(arrays["labels"][chosen])
        with torch.autocast("cpu", torch.bfloat16):
            logits = run.net(to_tensor(np.stack(crops).astype(np.uint8), 0.0, 255.0))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.02)
        right = float((logits.argmax(1) == labels).float().mean())
        run.step(loss, f"right {right:.3f}")
    return run


TRAIN = {"detector": train_detector, "recogniser": train_recogniser, "pad": train_pad}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", choices=sorted(PLAN))
    parser.add_argument("--out", type=Path, default=Path("run/simpack"))
    parser.add_argument("--cache", type=Path, default=None, help="keep the rendered pictures here")
    parser.add_argument("--steps", type=int, default=None, help="fewer, for a trial")
    parser.add_argument("--count", type=int, default=None, help="fewer pictures, for a trial")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    plan = dict(PLAN[asked.net])
    plan["steps"] = asked.steps or plan["steps"]
    for key in ("pictures", "people", "scenes"):
        if key in plan and asked.count:
            plan[key] = asked.count
    arrays = _pictures(asked.net, plan, asked.cache)
    asked.out.mkdir(parents=True, exist_ok=True)
    plan["out"] = asked.out / f"{asked.net}.pt"
    torch.manual_seed(SEED)
    TRAIN[asked.net](arrays, plan, np.random.default_rng(SEED)).save()


def _pictures(net: str, plan: dict[str, Any], cache: Path | None) -> Arrays:
    """Rendered now, or taken from the cache."""
    kept = cache / f"{net}.npz" if cache else None
    if kept and kept.exists():
        with np.load(kept) as stored:
            return {key: stored[key] for key in stored.files}
    started = time.monotonic()
    arrays = RENDER[net](plan)
    print(f"rendered in {time.monotonic() - started:.0f}s", flush=True)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **arrays)  # type: ignore[arg-type,unused-ignore]
    return arrays


if __name__ == "__main__":
    main()
