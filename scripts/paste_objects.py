#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Composes clips with several objects out of sequences with one, as a development set for several objects.

usage: paste_objects.py DAVIS SPLIT OUT

DAVIS has JPEGImages/SEQUENCE/*.jpg and Annotations/SEQUENCE/*.png; SPLIT is a text file with one SEQUENCE a line.
Writes 12 clips of up to 60 frames to OUT, in the same layout, with object ids in the masks: six with the object of
another sequence, three with a copy of the sequence's own object, four frames older, and three with both. Each added
object crosses the first one. The clips depend on the input only. Needs numpy, opencv-python-headless and Pillow.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

FRAMES, DELAY, SEED = 60, 4, 1
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def files(davis, kind, sequence):
    """Returns the files of a sequence, which may lie in a folder of its resolution."""
    for folder in [davis / kind, *sorted((davis / kind).glob("*/"))]:
        if found := sorted((folder / sequence).glob("*.*")):
            return found
    sys.exit(f"{davis / kind} has no folder {sequence} with files: correct the split, or give the folder that has {kind}")


class Sequence:
    """Frames (BGR) and masks (boolean) of a sequence."""

    def __init__(self, davis, name):
        self.name = name
        pictures, masks = (files(davis, kind, name)[:FRAMES] for kind in ("JPEGImages", "Annotations"))
        if [path.stem for path in pictures] != [path.stem for path in masks]:
            sys.exit(f"{pictures[0].parent} and {masks[0].parent} have different names: each frame needs a mask of its name")
        self.frames = [cv2.imread(str(path)) for path in pictures]
        masks = [np.array(Image.open(path)) for path in masks]
        self.masks = [(mask if mask.ndim == 2 else mask.max(2)) > 0 for mask in masks]

    def centre(self, frame):
        """Returns the centroid (x, y) of the object, or the middle of the frame without one."""
        rows, columns = np.nonzero(self.masks[frame])
        height, width = self.masks[frame].shape
        return np.array([columns.mean(), rows.mean()] if len(rows) else [width / 2, height / 2])


def paste(image, labels, sequence, frame, move, label):
    """Pastes the object of a frame, moved by (x, y)."""
    height, width = labels.shape
    matrix = np.float32([[1, 0, move[0]], [0, 1, move[1]]])
    mask = sequence.masks[frame].astype(np.float32)
    mask, colour = (cv2.warpAffine(x, matrix, (width, height)) for x in (mask, sequence.frames[frame].astype(np.float32)))
    alpha = cv2.GaussianBlur(mask, (0, 0), 0.7)[..., None]
    labels[mask > 0.5] = label
    return image * (1 - alpha) + colour * alpha


def compose(first, others, random, out, name):
    """Writes a clip of `first` with the objects of `others`, pairs of a sequence and a delay, in front of it."""
    count = min(len(sequence.frames) for sequence, _ in [(first, 0), *others])
    width = first.frames[0].shape[1]
    moves = []
    for index, (sequence, delay) in enumerate(others):
        side = (-1) ** (index + random.randint(2))
        # From beside the object to its other side; the object is crossed a little after the middle of the clip.
        start = np.array([side * random.uniform(0.25, 0.35) * width, random.uniform(-15, 15)])
        if not 0.1 < (first.centre(0) + start)[0] / width < 0.9:
            start[0] = -start[0]
        moves.append((start, -1.8 * start * [1, 0]))
    for frame in range(count):
        image, labels = first.frames[frame].astype(np.float32), first.masks[frame].astype(np.uint8)
        for label, ((sequence, delay), (start, way)) in enumerate(zip(others, moves), 2):
            at = max(frame - delay, 0)
            target = first.centre(frame) + start + way * frame / count
            image = paste(image, labels, sequence, at, target - sequence.centre(at), label)
        for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (out / kind / name).mkdir(parents=True, exist_ok=True)
            path = out / kind / name / f"{frame:05}.{ending}"
            if ending == "jpg":
                cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])
            else:
                picture = Image.fromarray(labels, "P")
                picture.putpalette(PALETTE)
                picture.save(path)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    davis, split, out = map(Path, sys.argv[1:])
    if not split.is_file():
        sys.exit(f"{split} is not a file: give a text file with one SEQUENCE a line")
    sequences = [Sequence(davis, name) for name in split.read_text().split()]
    if len(sequences) < 2:
        sys.exit(f"{split}: name at least two sequences")
    random = np.random.RandomState(SEED)
    for clip in range(12):
        first = sequences[clip % len(sequences)]
        rest = [sequence for sequence in sequences if sequence is not first]
        other = (rest[random.randint(len(rest))], 0)
        copy = (first, DELAY)
        others = [other] if clip < 6 else [copy] if clip < 9 else [other, copy]
        name = "-and-".join([first.name, *("copy" if sequence is first else sequence.name for sequence, _ in others)])
        compose(first, others, random, out, f"{clip:02}-{name}")
    print(f"12 clips: {out}")


if __name__ == "__main__":
    main()
