#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Checks and times the network `resnet50` in PyTorch, with the weights of examples/bench_gpu.

scripts/bench-gpu.sh runs it after examples/bench_gpu, whose folder has resnet50.safetensors and
golden-resnet50.safetensors. Needs only torch. As in the plugin, batch normalisation is folded and tensors are channels
last, so that only the launch of work on the device differs.
"""

import argparse
import json
import struct
import sys
import time

import torch
import torch.nn.functional as F

KINDS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load(path):
    """Returns the tensors and the metadata of a .safetensors file."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        flat = torch.frombuffer(data[start:end], dtype=KINDS[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"]).float().clone()
    return tensors, metadata


class Network(torch.nn.Module):
    """FaSTGAN's regressor, as in the paper."""

    def __init__(self, tensors):
        super().__init__()
        self.weights = torch.nn.ParameterDict()
        self.names = {}
        done = set()
        for name in tensors:
            if not name.endswith(".weight") or tensors[name].dim() != 4:
                continue
            base = name[: -len(".weight")]
            if base in ("encoder.conv1", "encoder.conv1_mask"):
                continue
            norm = self.norm_of(base, tensors)
            weight, bias = tensors[name], tensors.get(base + ".bias")
            if norm:
                weight, bias = self.fold(weight, torch.zeros(len(weight)), norm, tensors)
            self.put(base, weight, bias)
            done.add(base)
        stem = torch.cat([tensors["encoder.conv1.weight"], tensors["encoder.conv1_mask.weight"]], 1)
        self.put("stem", *self.fold(stem, tensors["encoder.conv1_mask.bias"], "encoder.bn1", tensors))
        # The softmax over two classes needs only the difference of their logits. Half of the input channels of the
        # first matching layers are those of the reference.
        weight, bias = tensors["head.weight"], tensors["head.bias"]
        self.put("head", weight[1:] - weight[:1], bias[1:] - bias[:1])
        for side in ("conv_l1", "conv_r1"):
            weight, bias = tensors[f"matching.{side}.weight"], tensors[f"matching.{side}.bias"]
            now, reference = weight.chunk(2, 1)
            self.put(f"matching.{side}.now", now, bias)
            self.put(f"matching.{side}.reference", reference, None)
        self.depths = [
            len({name.split(".")[2] for name in tensors if name.startswith(f"encoder.layer{i}.")})
            for i in (1, 2, 3, 4)
        ]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1), persistent=False)

    @staticmethod
    def norm_of(base, tensors):
        head, _, last = base.rpartition(".")
        name = f"{head}.1" if head.endswith("downsample") else f"{head}.{last.replace('conv', 'bn')}"
        return name if name + ".running_var" in tensors else None

    @staticmethod
    def fold(weight, bias, norm, tensors):
        scale = tensors[norm + ".weight"] * torch.rsqrt(tensors[norm + ".running_var"] + 1e-5)
        shift = tensors[norm + ".bias"] + scale * (bias - tensors[norm + ".running_mean"])
        return weight * scale.reshape(-1, 1, 1, 1), shift

    def put(self, base, weight, bias):
        key = base.replace(".", "_")
        self.weights[key + "_w"] = torch.nn.Parameter(
            weight.contiguous(memory_format=torch.channels_last), requires_grad=False
        )
        if bias is not None:
            self.weights[key + "_b"] = torch.nn.Parameter(bias.clone(), requires_grad=False)

    def conv(self, name, x, stride=1):
        key = name.replace(".", "_")
        weight = self.weights[key + "_w"]
        bias = self.weights[key + "_b"] if key + "_b" in self.weights else None
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        return F.conv2d(x, weight, bias, stride, padding)

    def encode(self, image, mask):
        kind = self.weights["stem_w"].dtype
        x = torch.cat([((image - self.mean) / self.std).to(kind), mask.to(kind)], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu(self.conv("stem", x, 2)), 3, 2, 1)
        features = []
        for layer, depth in enumerate(self.depths, 1):
            for block in range(depth):
                name = f"encoder.layer{layer}.{block}"
                stride = 2 if layer > 1 and block == 0 else 1
                y = F.relu(self.conv(name + ".conv1", x))
                y = F.relu(self.conv(name + ".conv2", y, stride))
                y = self.conv(name + ".conv3", y)
                if block == 0:
                    x = self.conv(name + ".downsample.0", x, stride)
                x = F.relu(y + x)
            features.append(x)
        return features

    def reference(self, image, mask):
        x = self.encode(image, mask)[3]
        return [self.conv(f"matching.{side}.reference", x) for side in ("conv_l1", "conv_r1")]

    def residual(self, x, first, second):
        return x + self.conv(second, F.relu(self.conv(first, F.relu(x))))

    def refine(self, name, skip, x):
        s = self.residual(self.conv(name + ".f1", skip), name + ".f2", name + ".f3")
        m = s + F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.residual(m, name + ".g1", name + ".g2")

    def start(self, mask):
        """Returns the temporal skip of zero features."""
        bias = self.weights["temporal_b"].float().reshape(1, -1, 1, 1)
        return bias.expand(mask.shape[0], -1, mask.shape[2] // 4, mask.shape[3] // 4).contiguous()

    def forward(self, image, mask, temporal, left, right):
        s4, s8, s16, s32 = self.encode(image, mask)
        left = self.conv("matching.conv_l2", self.conv("matching.conv_l1.now", s32) + left)
        right = self.conv("matching.conv_r2", self.conv("matching.conv_r1.now", s32) + right)
        x = self.residual(left + right, "residual.conv1", "residual.conv2")
        x = self.refine("refine4", s16, x)
        x = self.refine("refine3", s8, x)
        x = self.refine("refine2", s4, x)
        logit = self.conv("head", torch.cat([x, temporal.to(x.dtype)], 1)).float()
        logit = F.interpolate(logit, scale_factor=4, mode="bilinear", align_corners=False)
        return logit, self.conv("temporal", x).float()


def check(network, golden):
    """Returns the maximum relative difference of two steps' logits from those of the plugin in float32."""
    left, right = network.reference(golden["first"], golden["mask"])
    temporal = network.start(golden["mask"])
    one, temporal = network(golden["second"], golden["mask"], temporal, left, right)
    two, _ = network(golden["third"], torch.sigmoid(one), temporal, left, right)
    scale = golden["two"].abs().max().item()
    return max((a - golden[b]).abs().max().item() for a, b in ((one, "one"), (two, "two"))) / max(scale, 1e-6)


def measure(step, runs, wait):
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        step()
        wait()
        times.append(1e3 * (time.perf_counter() - begun))
    return sorted(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="output folder of examples/bench_gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--precision", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--no-compile", action="store_true", help="only eager")
    args = parser.parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    torch.backends.cudnn.benchmark = True
    tensors, _ = load(f"{args.folder}/resnet50.safetensors")
    golden, _ = load(f"{args.folder}/golden-resnet50.safetensors")
    csv = open(f"{args.folder}/results-pytorch.csv", "w", encoding="utf-8")
    print("what,model,precision,way,detail,p50 ms,p99 ms,per second,note", file=csv, flush=True)

    with torch.inference_mode():
        difference = check(Network(tensors), golden)
        right = difference < 1e-3
        verdict = "right" if right else "wrong"
        print(f"pytorch   resnet50  float32   cpu    {verdict}: logits differ by {difference:.1e} of their range", flush=True)
        chosen = [args.precision] if args.precision else (["bfloat16", "float16"] if on_gpu else ["float32"])
        for precision in chosen:
            network = Network(tensors).to(device=device, memory_format=torch.channels_last)
            network = network.to(getattr(torch, precision))
            network.mean, network.std = network.mean.float(), network.std.float()
            inputs = {name: golden[name].to(device) for name in ("first", "mask", "second")}
            left, right_half = network.reference(inputs["first"], inputs["mask"])
            temporal = network.start(inputs["mask"])
            ways = [("eager", network)]
            if not args.no_compile:
                ways.append(("compile", torch.compile(network, mode="max-autotune")))
            for way, call in ways:
                step = lambda: call(inputs["second"], inputs["mask"], temporal, left, right_half)
                try:
                    begun = time.perf_counter()
                    for _ in range(min(30, args.runs)):
                        step()
                    wait()
                    ready = time.perf_counter() - begun
                    times = measure(step, args.runs, wait)
                except Exception as error:  # If compilation fails, report it and continue.
                    print(f"pytorch   resnet50  {precision:9} {way:6} failed: {error}".splitlines()[0], flush=True)
                    continue
                median, p99 = times[len(times) // 2], times[min(len(times) * 99 // 100, len(times) - 1)]
                rate = 1e3 * len(times) / sum(times)
                peak = f"at most {torch.cuda.max_memory_reserved() >> 20} MiB" if on_gpu else ""
                print(
                    f"pytorch   resnet50  {precision:9} {way:7} {'1 objects':22} {median:8.3f} {p99:8.3f} {rate:9.1f}  ready after {ready:.1f} s {peak}",
                    flush=True,
                )
                print(f"pytorch,resnet50,{precision},{way},1 objects,{median:.3f},{p99:.3f},{rate:.1f},{peak}", file=csv, flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
