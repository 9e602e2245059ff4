#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Copies the refiner of a model into another one of the same kind.

    copy_refiner.py MODEL FROM OUT

OUT is MODEL, exported in half precision or in int8, with the refiner of FROM in half precision; a refiner that MODEL has is
replaced. FROM is the model of a run with `[refinement]`, whose configuration becomes the metadata `refiner_training_config`,
or another model with such a refiner. Needs numpy.
"""

import json
import sys

import numpy as np
from average_weights import read, tensor, write

METADATA = "__metadata__"
REFINER_CONFIG = "refiner_training_config"


def main(arguments):
    if len(arguments) != 3:
        sys.exit(__doc__)
    (model, data), (source, source_data) = (read(path) for path in arguments[:2])
    config, source_config = (json.loads(header[METADATA]["config"]) for header in (model, source))
    if not source_config.get("refiner_channels"):
        sys.exit(f"{arguments[1]} has no refiner: give the model of a run with [refinement]")
    for key in ("matching", "width"):
        if config[key] != source_config[key]:
            sys.exit(f"{key} is {config[key]} in {arguments[0]}, and {source_config[key]} in {arguments[1]}")
    config["refiner_channels"] = source_config["refiner_channels"]
    metadata = model[METADATA] | {
        "config": json.dumps(config, separators=(",", ":")),
        REFINER_CONFIG: source[METADATA].get(REFINER_CONFIG, source[METADATA]["training_config"]),
    }
    kept = [
        (name, entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in model.items()
        if name != METADATA and not name.startswith("refiner.")
    ]
    copied = [
        (name, "F16", entry["shape"], tensor(source, source_data, name).astype(np.float16).tobytes())
        for name, entry in source.items()
        if name.startswith("refiner.")
    ]
    header, out = {METADATA: metadata}, bytearray()
    # Tensors of single bytes come last, so that all are aligned.
    for name, dtype, shape, values in sorted(kept + copied, key=lambda item: item[1] == "I8"):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(out), len(out) + len(values)]}
        out.extend(values)
    write(arguments[2], header, out)


if __name__ == "__main__":
    main(sys.argv[1:])
