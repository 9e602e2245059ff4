#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Checks and benchmarks an NVIDIA GPU; see `scripts/bench-gpu.sh --help`.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/bench-gpu.sh [--libtorch DIR] [--out FOLDER] [--no-pytorch] [OPTION...]

Runs in a checkout (after CUDA=1 scripts/setup.sh) or in a bundle of scripts/bundle-gpu.sh:
  - times network, pipeline and tracker: eagerly and with CUDA graphs, lite and resnet50, one and several objects,
    720p to 4K;
  - checks that masks match those of the CPU in float32, and that half precision does not drift over 1,000 frames;
  - times resnet50 in PyTorch, eager and compiled, if python3 has torch.
Nothing is downloaded; the videos are drawn.

Each result is printed and written to FOLDER/results.csv, results.json and results-pytorch.csv at once (default
FOLDER: bench-gpu). Other options are passed to examples/bench_gpu; its --help lists them. To try everything on a CPU:
  scripts/bench-gpu.sh --device cpu --tiny --runs 5 --frames 5 --long 20
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=bench-gpu
libtorch=()
pytorch=yes
device=cuda
runs=300
rest=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --no-pytorch) pytorch=no; shift ;;
    --libtorch | --out | --device | --runs)
      [ $# -ge 2 ] || { printf 'bench-gpu: error: %s needs a value\n' "$1" >&2; exit 2; }
      case $1 in
        --libtorch) libtorch=(--libtorch "$2") ;;
        --out) out=$2 ;;
        --device) device=$2 ;;
        --runs) runs=$2 ;;
      esac
      shift 2
      ;;
    *) rest+=("$1"); shift ;;
  esac
done

if [ -x "$here/run" ]; then
  bench=("$here/run" "${libtorch[@]}" bench_gpu)
  script=$here/bench_pytorch.py
else
  cd "$here/.."
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  [ ${#libtorch[@]} -eq 0 ] || export LIBTORCH=${libtorch[1]}
  cargo build --release --example bench_gpu
  bench=("${CARGO_TARGET_DIR:-target}/release/examples/bench_gpu")
  script=$here/bench_pytorch.py
fi

mkdir -p "$out"
{
  uname -srm
  grep -m 1 'model name' /proc/cpuinfo || true
  nproc
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv 2>/dev/null || echo "nvidia-smi is not available"
} | tee "$out/machine.txt"

status=0
"${bench[@]}" --device "$device" --runs "$runs" --out "$out" "${rest[@]}" || status=$?
if [ $pytorch = yes ]; then
  if python3 -c 'import torch' 2>/dev/null; then
    # The compiler's messages about each kernel go to a log.
    python3 "$script" "$out" --device "$device" --runs "$runs" 2>"$out/pytorch.log" || {
      status=$?
      tail -n 5 "$out/pytorch.log" >&2
    }
  else
    echo "pytorch   skipped: python3 has no torch"
  fi
fi
exit $status
