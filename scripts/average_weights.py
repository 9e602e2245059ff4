#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Averages weights files of one network, layer by layer.

    average_weights.py OUT FILE=WEIGHT ... [--layers PREFIX,... FILE=WEIGHT ...]

The weights of the files add up to 1; negative ones extrapolate. A further list after `--layers` applies to the
tensors whose names start with one of the prefixes. A tensor that a file lacks is zero there. Metadata and shapes are those
of the first file. Needs numpy.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

TYPES = {"F16": np.float16, "F32": np.float32}


def read(path):
    if not Path(path).is_file():
        sys.exit(f"{path} is not a file: give .safetensors files as FILE=WEIGHT")
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), file.read()


def tensor(header, data, name):
    start, end = header[name]["data_offsets"]
    if header[name]["dtype"] not in TYPES:
        sys.exit(f"{name} is {header[name]['dtype']}: give files in F16 or F32, exported without --int8")
    return np.frombuffer(data[start:end], TYPES[header[name]["dtype"]]).astype(np.float64)


def write(path, header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def parse(terms):
    if not terms:
        sys.exit("a list without FILE=WEIGHT: give at least one file after OUT, and after each `--layers PREFIX,...`")
    weights = {}
    for term in terms:
        path, _, weight = term.rpartition("=")
        try:
            weights[path] = weights.get(path, 0.0) + float(weight)
        except ValueError:
            sys.exit(f"{term} is not FILE=WEIGHT with a number as WEIGHT")
    if abs(sum(weights.values()) - 1.0) > 1e-6:
        sys.exit(f"the weights {' '.join(terms)} add up to {sum(weights.values()):g}: make them add up to 1")
    return weights


def main(arguments):
    out, *rest = arguments
    default, groups = [], []
    target = default
    for argument in rest:
        if argument == "--layers":
            target = []
            groups.append(target)
        else:
            target.append(argument)
    groups = [(tuple("".join(group[:1]).split(",")), parse(group[1:])) for group in groups]
    default = parse(default)
    files = {path: read(path) for weights in [default, *(weights for _, weights in groups)] for path in weights}
    header, data = files[next(iter(default))]
    for prefix in (prefix for prefixes, _ in groups for prefix in prefixes):
        if not any(name.startswith(prefix) for name in header):
            sys.exit(f"no tensor of {next(iter(default))} starts with {prefix}: correct the list after --layers")
    result = bytearray(data)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        weights = next((weights for prefixes, weights in groups if name.startswith(prefixes)), default)
        for path in weights:
            other = files[path][0].get(name, entry)
            if other["shape"] != entry["shape"]:
                sys.exit(f"{name} of {path} has the shape {other['shape']}, not {entry['shape']}: give files of one network")
        terms = [weight * tensor(*files[path], name) for path, weight in weights.items() if name in files[path][0]]
        start, end = entry["data_offsets"]
        result[start:end] = sum(terms, np.zeros(entry["shape"])).astype(TYPES[entry["dtype"]]).tobytes()
    # The scores are those of one of the files.
    metadata = header.get("__metadata__", {})
    header["__metadata__"] = {key: value for key, value in metadata.items() if not key.startswith("validation")}
    write(out, header, result)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1:])
