#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Converts MediaPipe Selfie Segmentation to models/person.safetensors and records golden outputs for
tests/golden_person.rs.

The file is that of the npm package (`npm pack @mediapipe/selfie_segmentation@0.1.1675465747`):

    scripts/convert_person.py package/selfie_segmentation_landscape.tflite

Needs numpy and ai-edge-litert. The weights are in half precision in the file of the package too, so nothing is
rounded. Batch normalisation is already folded: all convolutions have a bias.

The golden outputs are those of LiteRT in float32. The last layer of the file is an operator that only MediaPipe has,
Convolution2DTransposeBias. For LiteRT, the built-in operator TRANSPOSE_CONV with the same weights replaces it.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from write_safetensors import save

SHA256 = "4aafe6223bb8dac6fac8ca8ed56852870a33051ef3f6238822d282a109962894"
METADATA = {
    "format": "1",
    "network": "person",
    "architecture": "MobileNetV3 encoder, LR-ASPP head, decoder with channel attention; input 144x256",
    "source": "selfie_segmentation_landscape.tflite of the npm package @mediapipe/selfie_segmentation 0.1.1675465747",
    "licence": "Apache-2.0",
}
# Blocks of the encoder: whether they have channel attention.
BLOCKS = [True, False, False, True, True, True, True, True]
DECODER_BLOCKS = 3

WIDTH, HEIGHT = 256, 144
STEP = 3


def layers():
    """Names of the convolutions in the order of the file."""
    yield "encoder.stem"
    for index, attention in enumerate(BLOCKS):
        block = f"encoder.blocks.{index}"
        yield from (f"{block}.expand", f"{block}.depthwise")
        if attention:
            yield from (f"{block}.attention.reduce", f"{block}.attention.expand")
        yield f"{block}.project"
    yield from ("head.conv", "head.attention")
    for index in range(DECODER_BLOCKS):
        block = f"decoder.{index}"
        yield from (f"{block}.reduce", f"{block}.attention.reduce", f"{block}.attention.expand")
        yield from (f"{block}.fuse", f"{block}.depthwise")
    yield "output"


def operator(model, op):
    code = model.operatorCodes[op.opcodeIndex]
    return code.customCode or max(code.builtinCode, code.deprecatedBuiltinCode)


def convert(model):
    """Returns the named tensors in PyTorch's layouts."""
    graph = model.subgraphs[0]
    kinds = schema.BuiltinOperator
    stored = {op.outputs[0]: op.inputs[0] for op in graph.operators if operator(model, op) == kinds.DEQUANTIZE}

    def values(index):
        tensor = graph.tensors[stored[index]]
        assert tensor.type == schema.TensorType.FLOAT16, tensor.name
        return model.buffers[tensor.buffer].data.view(np.float16).reshape(tensor.shape)

    # From (outputs, rows, columns, inputs), or for depthwise convolutions (1, rows, columns, channels).
    layouts = {
        kinds.CONV_2D: (0, 3, 1, 2),
        kinds.DEPTHWISE_CONV_2D: (3, 0, 1, 2),
        b"Convolution2DTransposeBias": (3, 0, 1, 2),
    }
    convolutions = [op for op in graph.operators if operator(model, op) in layouts]
    tensors = {}
    for name, op in zip(layers(), convolutions, strict=True):
        kernel, bias = values(op.inputs[1]), values(op.inputs[2])
        weight = kernel.transpose(layouts[operator(model, op)])
        assert np.isfinite(weight).all() and np.isfinite(bias).all(), name
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, bias
        rows, columns = graph.tensors[op.outputs[0]].shape[1:3]
        print(f"{name:32} {str(weight.shape):18} output {rows}x{columns}")
    print(sum(tensor.size for tensor in tensors.values()), "parameters")
    return tensors


def replace_custom_operator(model):
    """Replaces Convolution2DTransposeBias of stride 2 by TRANSPOSE_CONV, and returns the file."""
    graph = model.subgraphs[0]
    (op,) = [op for op in graph.operators if operator(model, op) == b"Convolution2DTransposeBias"]
    # Padding (1 is SAME), and the strides.
    assert op.customOptions.view(np.int32).tolist() == [1, 2, 2]
    code = model.operatorCodes[op.opcodeIndex]
    code.customCode, code.version = None, 3
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.TRANSPOSE_CONV
    shape = schema.TensorT(shape=[4], type=schema.TensorType.INT32, buffer=len(model.buffers), name=b"shape")
    size = graph.tensors[op.outputs[0]].shape
    model.buffers.append(schema.BufferT(data=np.array(size, np.int32).view(np.uint8)))
    graph.tensors.append(shape)
    image, kernel, bias = op.inputs
    op.inputs = [len(graph.tensors) - 1, kernel, image, bias]
    op.customOptions = None
    op.builtinOptionsType = schema.BuiltinOptions.TransposeConvOptions
    op.builtinOptions = schema.TransposeConvOptionsT(padding=schema.Padding.SAME, strideW=2, strideH=2)
    builder = schema.flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def picture():
    """A head and shoulders on a gradient, (H, W, 3) bytes; tests/golden_person.rs draws the same."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([90 + x * 60 // 255, 120 + y * 60 // 143, 150 + 0 * x], -1)
    shoulders = (x - 120) ** 2 * 4 + (y - 150) ** 2 * 9 < 140**2
    neck = (abs(x - 120) < 11) & (y > 70) & (y < 112)
    head = (x - 120) ** 2 * 16 + (y - 58) ** 2 * 9 < 96**2
    hair = head & (y < 42)
    eyes = ((x - 111) ** 2 + (y - 56) ** 2 < 6) | ((x - 129) ** 2 + (y - 56) ** 2 < 6)
    mouth = (abs(x - 120) < 7) & (abs(y - 74) < 2)
    for region, color in [
        (shoulders, (40, 50, 110)),
        (neck, (200, 150, 125)),
        (head, (220, 170, 140)),
        (hair, (60, 40, 30)),
        (eyes, (40, 30, 30)),
        (mouth, (160, 70, 70)),
    ]:
        rgb[region] = color
    return rgb.astype(np.uint8)


def segmenter(file):
    """Returns a function from a picture (144, 256, 3) of bytes to the probability (144, 256)."""
    interpreter = Interpreter(model_content=file, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def segment(rgb):
        interpreter.set_tensor(source["index"], rgb[None].astype(np.float32) / np.float32(255))
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])[0, :, :, 0]

    return segment


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    path = parser.parse_args().model
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{path}: sha256 {digest} is not that of the package, {SHA256}")
    root = Path(__file__).resolve().parent.parent
    model = schema.ModelT.InitFromPackedBuf(content)
    save(root / "models/person.safetensors", convert(model), METADATA)
    probability = segmenter(replace_custom_operator(model))(picture())
    print("golden: mean probability", probability.mean(), "largest", probability.max())
    golden = {"probability": probability[::STEP, ::STEP]}
    save(root / "tests/golden_person.safetensors", golden, {"step": str(STEP)})


if __name__ == "__main__":
    main()
