#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Starts a larger model from a trained `lite` model.

    transfer_decoder.py LITE LARGE OUT

LARGE is a model of a run of one step with the encoder of a ResNet-50. OUT has its metadata, its ResNet-50 and its weights for
the features of that, and all else of LITE. Needs numpy.
"""

import sys

from average_weights import TYPES, read, tensor, write

# Inputs of layers in front of the features at strides 8 and 16, and those features in `lite`.
FEATURES = {
    "decoder.fuse16.weight": (0, 96),
    "decoder.fuse8.weight": (64, 32),
    "matching.value.weight": (0, 96),
    "matching.key16.weight": (0, 96),
    "matching.key8.weight": (0, 288),
}


def main(arguments):
    if len(arguments) != 3:
        sys.exit(__doc__)
    (lite, lite_data), (large, large_data) = (read(path) for path in arguments[:2])
    out = bytearray(large_data)
    for name, info in large.items():
        if name == "__metadata__" or name not in lite:
            continue
        old = tensor(lite, lite_data, name).reshape(lite[name]["shape"])
        new = tensor(large, large_data, name).reshape(info["shape"])
        if old.shape == new.shape:
            new = old
        elif name in FEATURES:
            front, features = FEATURES[name]
            behind = old.shape[1] - front - features
            new[:, :front] = old[:, :front]
            new[:, new.shape[1] - behind :] = old[:, old.shape[1] - behind :]
        else:
            sys.exit(f"{name} has the shape {list(new.shape)} in {arguments[1]}, and {list(old.shape)} in {arguments[0]}")
        start, end = info["data_offsets"]
        out[start:end] = new.astype(TYPES[info["dtype"]]).tobytes()
    write(arguments[2], large, out)


if __name__ == "__main__":
    main(sys.argv[1:])
