"""Finds objects in images with the exported detector in its folder: `python detect.py IMAGE ...` prints JSON.

It needs numpy, onnxruntime (torch and torchvision for .pt2), and Pillow for files, which it turns as their camera noted
unless `--as-stored`. `Detector(folder)(pixels)`: boxes are x1, y1, x2, y2; A are all levels' cells times their anchors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy's
Rule = dict[str, Any]
LARGEST = float(np.log(1000 / 16))  # of a side's logarithm
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # Pillow hands PostScript to another program


class Grid(NamedTuple):
    """The anchors of all levels, row after row."""

    centre: Array  # (A, 2): x, y in pixels
    box: Array  # (A, 4)
    stride: Array  # (A, 1)
    inside: Array  # (A,): whether its cell lies in the image, or the padding counts as well
    counts: list[int]  # how many each level has
    size: tuple[int, int]  # of the image, height and width


class Found(NamedTuple):
    """What is found, in no order."""

    boxes: Array  # (N, 4)
    scores: Array  # (N,)
    labels: Array  # (N,)


class Detector:
    """The detector whose files lie in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.rule: Rule = json.loads((Path(folder) / "detector.json").read_text(encoding="utf-8"))
        self.graphs = [opened(Path(folder) / name) for name in self.rule["graphs"]]

    def __call__(self, image: Array) -> list[dict[str, Any]]:
        """What is found in an image, (H, W, 3) uint8 in RGB; best first, boxes in its pixels."""
        height, width = sides(image.shape[:2], self.rule["resize"])
        pixels = self.padded(resized(image, height, width))
        said = self.graphs[0](pixels)
        maps = {name: [said[i][0] for i in numbers] for name, numbers in self.rule["outputs"].items()}
        decode = {"dense": dense, "mimic": mimic, "regions": self.regions}[self.rule["kind"]]
        grid = laid(self.rule, maps, canvas=pixels.shape[2:], size=(height, width))
        found = best(decode(self.rule, maps, grid), grid.size, self.rule)
        boxes = found.boxes / np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
        every = zip(boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        return [{"box": box, "score": score, "label": n, "class": self.rule["classes"][n]} for box, score, n in every]

    def padded(self, image: Array) -> Array:
        """Pixels of 0..1 on a canvas whose sides are multiples of the divisor. -> (1, 3, H, W) float32."""
        height, width = (side + -side % self.rule["divisor"] for side in image.shape[:2])
        canvas = np.tile(np.array(self.rule["padding"], np.float32)[:, None, None], (1, 1, height, width))
        canvas[0, :, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1) / np.float32(255)
        return canvas

    def regions(self, rule: Rule, maps: dict[str, list[Array]], grid: Grid) -> Found:
        """Two stages: boxes that the first proposes are read from the pyramid, and judged by the second graph."""
        proposed = proposals(rule, maps, grid)
        if not len(proposed):
            return Found(proposed, np.zeros(0, np.float32), np.zeros(0, np.int64))
        logits, deltas = self.graphs[1](pooled(rule, maps["pyramid"], proposed))
        classes = softmax(logits)[:, 1:]  # the first is the background
        boxes = shifted(deltas.reshape(len(proposed), -1, 4)[:, 1:], proposed[:, None], rule["deltas"])
        region, label = np.nonzero(classes > rule["score_threshold"])
        return Found(boxes[region, label], classes[region, label], label)


def opened(file: Path) -> Callable[[Array], list[Array]]:
    """A graph that onnxruntime or torch runs: one input, any number of outputs."""
    if file.suffix == ".pt2":
        import torch
        import torchvision  # registers the operations that torch does not have

        assert torchvision.ops
        network = torch.export.load(file).module(check_guards=False)
        return lambda value: [said.detach().numpy() for said in network(torch.from_numpy(value))]
    import onnxruntime

    there = [p for p in onnxruntime.get_available_providers() if p in ("CUDAExecutionProvider", "CPUExecutionProvider")]
    session = onnxruntime.InferenceSession(str(file), providers=there)
    return lambda value: list(session.run(None, {session.get_inputs()[0].name: value}))


def sides(size: Sequence[int], resize: Sequence[int] | None) -> tuple[int, int]:
    """Height and width of an image once its short side is right, or its long one as long as it may be."""
    scale = 1.0 if resize is None else min(resize[0] / min(size), resize[1] / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def resized(image: Array, height: int, width: int) -> Array:
    """Bilinear, and each pixel a mean of all that it covers, in whole numbers as torch does it. (H, W, 3) uint8."""
    image = blended(image, width, axis=1) if image.shape[1] != width else image
    return blended(image, height, axis=0) if image.shape[0] != height else image


def blended(image: Array, length: int, *, axis: int) -> Array:
    """One side made longer or shorter."""
    reach = max(scale := image.shape[axis] / length, 1.0)
    middle, place = (np.arange(length)[:, None] + 0.5) * scale, np.arange(image.shape[axis])
    weight = np.maximum(1 - np.abs((place - middle + 0.5) / reach), 0)
    weight *= (place >= np.trunc(middle - reach + 0.5)) & (place < np.trunc(middle + reach + 0.5))
    weight /= weight.sum(1, keepdims=True)
    bits = next(bits for bits in range(22, 0, -1) if int(0.5 + weight.max() * 2**bits) < 2**15)
    said = np.tensordot(np.floor(0.5 + weight * 2**bits), image.astype(np.float64), axes=(1, axis))  # exact in 53 bits
    return np.moveaxis(np.clip(np.floor((said + 2 ** (bits - 1)) / 2**bits), 0, 255), 0, axis).astype(np.uint8)


def laid(rule: Rule, maps: dict[str, list[Array]], *, canvas: Sequence[int], size: tuple[int, int]) -> Grid:
    """The anchors over the maps of an image of this size on a canvas."""
    parts: list[tuple[Array, ...]] = []
    for level, stride, shapes in zip(maps[rule["laid_on"]], rule["strides"], rule["anchors"], strict=True):
        high, wide = level.shape[1:]
        down, right = (canvas[0] // high, canvas[1] // wide) if rule["measured"] else (stride, stride)
        cell = np.indices((high, wide))[::-1].reshape(2, -1).T.repeat(len(shapes), axis=0)  # x, y
        centre = (cell * [right, down]).astype(np.float32)
        box = np.tile(centre, 2) + np.tile(np.array(shapes, np.float32), (high * wide, 1))
        within = (cell * stride < [size[1], size[0]]).all(axis=1) | rule["padding_counts"]
        parts.append((centre, box, np.full((len(cell), 1), stride, np.float32), within))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Grid(joined[0], joined[1], joined[2], joined[3], [len(part[0]) for part in parts], size)


def dense(rule: Rule, maps: dict[str, list[Array]], grid: Grid) -> Found:
    """One stage: of each level the best pairs of anchor and class."""
    anchors = len(rule["anchors"][0])
    scores = sigmoid(rows(maps["cls"], anchors))
    scores = scores * np.clip(rows(maps["quality"], 1), 1e-6, 1 - 1e-6) if rule["score"] == "quality" else scores
    scores = np.sqrt(scores * sigmoid(rows(maps["centerness"], 1))) if rule["score"] == "joint" else scores
    scores = np.where(grid.inside[:, None], scores, 0)
    anchor, label = np.divmod(np.concatenate(ranked(rule, scores, grid, rule["score_threshold"])), scores.shape[1])
    score = scores[anchor, label]
    score = score * sigmoid(rows(maps["centerness"], 1))[anchor, 0] if rule["score"] == "centerness" else score
    return Found(told(rule, rows(maps["box"], anchors)[anchor], grid, anchor), score, label)


def ranked(rule: Rule, scores: Array, grid: Grid, limit: float) -> list[Array]:
    """Of each level the best that score higher than the limit, as places in all. Scores of (A, C)."""
    levels = zip(np.cumsum(grid.counts) - grid.counts, grid.counts, strict=True)
    places = [highest(scores[i : i + n].ravel(), rule["top_k"]) + i * scores.shape[1] for i, n in levels]
    return [part[scores.ravel()[part] > limit] for part in places]


def told(rule: Rule, said: Array, grid: Grid, anchor: Array) -> Array:
    """The boxes that a head says of these anchors. (N, .) -> (N, 4)."""
    centre, stride = grid.centre[anchor], grid.stride[anchor]
    if rule["box"] == "deltas":
        return shifted(said, grid.box[anchor], rule["deltas"])
    if rule["box"] == "points":
        return np.tile(centre, 2) + said * stride
    if rule["box"] == "bins":
        said = softmax(said.reshape(len(said), 4, said.shape[1] // 4)) @ np.arange(said.shape[1] // 4, dtype=np.float32)
    point = centre + stride // 2 if rule["from_middle"] else centre
    distance = said if rule["in_pixels"] else said * stride
    return np.concatenate([point - distance[:, :2], point + distance[:, 2:]], axis=1)


def mimic(rule: Rule, maps: dict[str, list[Array]], grid: Grid) -> Found:
    """Anchors are refined and ranked; of the best of them every class that scores high enough."""
    chosen = highest(np.where(grid.inside, rows(maps["score"], 1)[:, 0], -np.inf), rule["top_k"])
    chosen = chosen[grid.inside[chosen]]
    refined = shifted(rows(maps["delta"], 1)[chosen], grid.box[chosen], [1.0, 1.0])
    boxes = shifted(rows(maps["box"], 1)[chosen], refined, rule["deltas"])
    classes = softmax(rows(maps["cls"], 1)[chosen])[:, :-1]  # the last is the background
    anchor, label = np.nonzero(classes > rule["score_threshold"])
    return Found(boxes[anchor], classes[anchor, label], label)


def proposals(rule: Rule, maps: dict[str, list[Array]], grid: Grid) -> Array:
    """What the first stage proposes, best first. -> (N, 4)."""
    anchors = len(rule["anchors"][0])
    scores = np.where(grid.inside[:, None], sigmoid(rows(maps["objectness"], anchors)), 0)
    chosen = ranked(rule, scores, grid, 0.0)
    here, level = np.concatenate(chosen), np.arange(len(chosen)).repeat([len(part) for part in chosen])
    boxes = shifted(rows(maps["deltas"], anchors)[here], grid.box[here], [1.0, 1.0])
    own = {"nms_iou": rule["proposal_iou"], "max_detections": rule["proposals"], "smallest": rule["smallest_proposal"]}
    return best(Found(boxes, scores[here, 0], level), grid.size, own).boxes


def pooled(rule: Rule, pyramid: list[Array], boxes: Array) -> Array:
    """RoIAlign of each box on the level that fits its size. (N, 4) -> (N, C, P, P)."""
    strides, cells = rule["pool_strides"], rule["pooled"]
    side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    level = np.clip(np.floor(np.log2(side / (rule["pool_side"] * strides[0])) + 1e-6), 0, len(strides) - 1)
    found = np.empty((len(boxes), pyramid[0].shape[0], cells, cells), np.float32)
    for place, (box, number) in enumerate(zip(boxes, level.astype(int), strict=True)):
        x1, y1, x2, y2 = box / np.float32(strides[number]) - np.float32(0.5 if rule["aligned"] else 0)
        down, top = reading(y1, y2, pyramid[number].shape[1], rule)
        along, left = reading(x1, x2, pyramid[number].shape[2], rule)
        part = pyramid[number][:, top : top + down.shape[1], left : left + along.shape[1]]
        found[place] = down @ part @ along.T
    return found


def reading(start: float, end: float, length: int, rule: Rule) -> tuple[Array, int]:
    """How much each cell of a side counts in each bin of a region, and the first cell that counts. -> (P, cells)."""
    bins = rule["pooled"]
    extent = end - start if rule["aligned"] else max(end - start, 1.0)
    points = rule["sampling"] or max(int(np.ceil(extent / bins)), 1)
    step = np.float32(extent / bins)
    at = start + np.arange(bins)[:, None] * step + (np.arange(points) + np.float32(0.5)) * step / points
    counts = ((at >= -1) & (at <= length)) / points
    at = np.clip(at, 0, length - 1)
    low, high = np.floor(at).astype(int), np.ceil(at).astype(int)
    weight, bin_of = np.zeros((bins, length), np.float32), np.arange(bins)[:, None]
    np.add.at(weight, (bin_of, low), counts * (1 - (at - low)))
    np.add.at(weight, (bin_of, high), counts * (at - low))
    return weight[:, low.min() : high.max() + 1], int(low.min())


def best(found: Found, size: tuple[int, int], rule: Rule) -> Found:
    """Cut to the image of (height, width), suppressed class by class, and only so many."""
    boxes = np.minimum(np.maximum(found.boxes, 0), np.array([size[1], size[0]] * 2, np.float32))
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= rule.get("smallest", 0)).all(axis=1).nonzero()[0]
    boxes, scores, labels = boxes[kept], found.scores[kept], found.labels[kept]
    apart = boxes + (labels * (boxes.max(initial=0) + 1)).astype(np.float32)[:, None]
    kept = unlike(apart, scores, rule["nms_iou"])[: rule["max_detections"]]
    return Found(boxes[kept], scores[kept], labels[kept])


def unlike(boxes: Array, scores: Array, limit: float) -> Array:
    """The best boxes, none of which overlaps a better one by more than that IoU."""
    order, kept = np.argsort(-scores, kind="stable"), []
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        low, high = np.maximum(boxes[first, :2], boxes[rest, :2]), np.minimum(boxes[first, 2:], boxes[rest, 2:])
        both = np.maximum(high - low, 0).prod(axis=1)
        order = rest[~(both > limit * (area[first] + area[rest] - both))]
    return np.array(kept, dtype=np.int64)


def shifted(deltas: Array, anchor: Array, weights: Sequence[float]) -> Array:
    """The boxes that deltas make of anchors. (..., 4) twice -> (..., 4)."""
    side = anchor[..., 2:] - anchor[..., :2]
    middle = deltas[..., :2] / np.float32(weights[0]) * side + anchor[..., :2] + np.float32(0.5) * side
    half = np.float32(0.5) * np.exp(np.minimum(deltas[..., 2:] / np.float32(weights[1]), LARGEST)) * side
    return np.concatenate([middle - half, middle + half], axis=-1)


def rows(levels: Sequence[Array], anchors: int) -> Array:
    """Maps of (a*C, H, W) -> (A, C)."""
    return np.concatenate([level.reshape(len(level), -1).T.reshape(-1, len(level) // anchors) for level in levels])


def highest(values: Array, count: int) -> Array:
    """Where the largest values are, in no order."""
    return np.argpartition(-values, count)[:count] if count < len(values) else np.arange(len(values))


def sigmoid(x: Array) -> Array:
    return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x))


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def read(file: str | Path, *, as_stored: bool = False) -> Array:
    """An image file, turned as its camera noted or not; of sixteen bits the upper eight. (H, W, 3) uint8 in RGB."""
    from PIL import Image

    image, noted = Image.open(file, formats=FORMATS), 1
    image.filename = ""  # by its name Pillow maps TIFF into memory, and garbles what it then turns
    image.load()  # Pillow itself turns TIFF
    with suppress(Exception):  # a note that cannot be read is none
        noted = 1 if as_stored else image.getexif().get(0x0112, 1)
    pixels = np.array(image if image.mode.startswith("I") else image.convert("RGB"))
    if pixels.ndim == 2:  # Pillow opens some of eight bits as it does deeper ones
        shift = 8 if image.mode != "I" or pixels.max(initial=0) > 255 else 0
        pixels = np.clip(pixels.astype(np.int64) >> shift, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    pixels = pixels.swapaxes(0, 1) if noted in (5, 6, 7, 8) else pixels
    return pixels[:: -1 if noted in (3, 4, 7, 8) else 1, :: -1 if noted in (2, 3, 6, 7) else 1]


if __name__ == "__main__":
    here, found = Detector(Path(__file__).parent), dict[str, Any]()
    files = [word for word in sys.argv[1:] if word != "--as-stored"]
    for file in files:
        try:
            found[file] = here(read(file, as_stored="--as-stored" in sys.argv))
        except Exception as error:  # decoders raise anything
            print(f"{file}: {error}", file=sys.stderr)
    print(json.dumps(found, indent=1))
    sys.exit(len(found) < len(set(files)))
