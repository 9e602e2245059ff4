#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Composes people keyed off a plain background over moving videos, as training data for edges.

usage: key_people.py KEYED DAVIS OUT SEQUENCE...

KEYED and DAVIS have JPEGImages/SEQUENCE/*.jpg and Annotations/SEQUENCE/*.png. Writes six clips of up to
60 frames of 960x540 for each SEQUENCE of KEYED to OUT, in the same layout. Backgrounds are the sequences that DAVIS lists in
ImageSets/**/train.txt; without such a list, all of them. The person has another size, motion, brightness and
background in each clip. The mask is eroded by a pixel, so that nothing of the plain background remains. Needs numpy,
opencv-python-headless and Pillow.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = WIDTH, HEIGHT = 960, 540
CLIPS, FRAMES = 6, 60


def mask_of(path):
    """Returns the soft mask of a person, 0 to 1."""
    mask = np.array(Image.open(path))
    mask = (mask if mask.ndim == 2 else mask.max(2)) > 0
    return cv2.GaussianBlur(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32), (0, 0), 0.8)


def forth_and_back(items, index):
    """Returns an item of a sequence that is played forth and back."""
    index %= max(2 * len(items) - 2, 1)
    return items[min(index, 2 * len(items) - 2 - index)]


def frames_of(person, sequence):
    """Returns the frames of a sequence; ends the script if there are none, or if one has no mask."""
    folder = person / "JPEGImages" / sequence
    frames = sorted(folder.glob("*.jpg"))
    if not frames:
        sys.exit(f"{folder} has no frames (*.jpg): name folders of {person / 'JPEGImages'} as SEQUENCE")
    masks = person / "Annotations" / sequence
    for frame in frames:
        if not (masks / f"{frame.stem}.png").is_file():
            sys.exit(f"{masks} has no {frame.stem}.png: add the mask, or remove {frame}")
    return frames


def compose(person, sequence, frames, clip, random, backgrounds, out):
    """Writes one clip."""
    background = sorted(backgrounds[random.randint(len(backgrounds))].glob("*.jpg"))
    start = random.randint(0, max(1, len(frames) - FRAMES + 1))
    height, phase = random.uniform(300, 560), random.uniform(0, 6)
    flip, gain = random.rand() < 0.5, random.uniform(0.7, 1.2)
    folders = [out / kind / f"{sequence}-{clip}" for kind in ("JPEGImages", "Annotations")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames[start : start + FRAMES]):
        colour = cv2.imread(str(frame)).astype(np.float32)
        alpha = mask_of(person / "Annotations" / sequence / f"{frame.stem}.png")
        if flip:
            colour, alpha = colour[:, ::-1].copy(), alpha[:, ::-1].copy()
        scale = height / colour.shape[0]
        size = int(colour.shape[1] * scale), int(height)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        colour, alpha = cv2.resize(colour, size, interpolation=method) * gain, cv2.resize(alpha, size, interpolation=method)
        x = (WIDTH - size[0]) / 2 + 180 * np.sin(index / 18 + phase)
        y = max(HEIGHT - size[1], 0) + 15 * np.sin(index / 7)
        move = np.float32([[1, 0, x], [0, 1, y]])
        colour, alpha = cv2.warpAffine(colour, move, SIZE), cv2.warpAffine(alpha, move, SIZE)[..., None]
        below = cv2.resize(cv2.imread(str(forth_and_back(background, index))), SIZE, interpolation=cv2.INTER_CUBIC)
        picture = np.clip(alpha * colour + (1 - alpha) * below, 0, 255).round().astype(np.uint8)
        cv2.imwrite(str(folders[0] / f"{index:05d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 93])
        label = Image.fromarray((alpha[..., 0] > 0.5).astype(np.uint8), mode="P")
        label.putpalette([0, 0, 0, 200, 0, 0])
        label.save(folders[1] / f"{index:05d}.png")


def main():
    person, davis, out, *sequences = sys.argv[1:]
    random = np.random.RandomState(5)
    lines = [line.split() for path in Path(davis).glob("ImageSets/**/train.txt") for line in path.read_text().splitlines()]
    # DAVIS 2016 lists files, DAVIS 2017 names.
    listed = {Path(line[0]).parent.name if Path(line[0]).suffix else line[0] for line in lines if line}
    folders = sorted(path for path in Path(davis).glob("JPEGImages/**/*/") if any(path.glob("*.jpg")))
    backgrounds = [path for path in folders if not listed or path.name in listed]
    if not backgrounds:
        sys.exit(
            f"{davis} has no JPEGImages/**/SEQUENCE/*.jpg of its ImageSets/**/train.txt: give the folder of a data set in the "
            "layout of DAVIS"
        )
    # All before the first clip is written.
    frames = {sequence: frames_of(Path(person), sequence) for sequence in sequences}
    for sequence in sequences:
        for clip in range(CLIPS):
            compose(Path(person), sequence, frames[sequence], clip, random, backgrounds, Path(out))


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main()
