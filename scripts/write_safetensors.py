# SPDX-License-Identifier: MPL-2.0
"""Writes .safetensors files, for the scripts that convert weights."""

import json
import struct

import numpy as np


def save(path, tensors, metadata):
    """Writes named arrays. Equal input gives equal bytes, which the package safetensors does not guarantee."""
    names = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32"}
    header, start = {"__metadata__": metadata}, 0
    for name in sorted(tensors):
        value = tensors[name]
        end = start + value.nbytes
        header[name] = {"dtype": names[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name]).tobytes())
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size} bytes")
