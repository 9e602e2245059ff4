#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Checks and benchmarks an NVIDIA GPU; see `scripts/bench-gpu.sh --help`.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/bench-gpu.sh [--libtorch DIR] [--out FOLDER] [--no-pytorch] [--seconds N] [--train CONFIG] [OPTION...]

Runs in a checkout (after CUDA=1 scripts/setup.sh) or in a bundle of scripts/bundle-gpu.sh, in three stages:
  1. check (90 s): nine frames of lite, large and resnet50, plainly and with CUDA graphs, against the CPU in float32.
     At the first failure the run ends; FOLDER/failure.txt has what is needed to find its cause.
  2. table (6 min): times of network, pipeline and tracker, plainly and with CUDA graphs, one and several objects,
     720p to 4K; masks against the CPU over 200 frames; drift of half precision over 1,000 frames; memory at NULL after
     1,000 state changes. Then resnet50 in PyTorch, eager and compiled, if python3 has torch.
  3. train: with --train CONFIG, fastganseg-train for the rest of N seconds (default 840). Its checkpoint resumes.
Nothing is downloaded; the videos are drawn. With random weights (resnet50) only times count.

Each result is printed and written to FOLDER (default bench-gpu) at once: check/ and table/ have results.csv and
results.json, table/ has results-pytorch.csv, train/ has the run. Other options are passed to examples/bench_gpu; its
--help lists them. To try everything on a CPU:
  scripts/bench-gpu.sh --device cpu --tiny --runs 5 --frames 5 --long 20
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=bench-gpu
libtorch=()
pytorch=yes
device=cuda
runs=300
seconds=840
train=
rest=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --no-pytorch) pytorch=no; shift ;;
    --libtorch | --out | --device | --runs | --seconds | --train)
      [ $# -ge 2 ] || { printf 'bench-gpu: error: %s needs a value\n' "$1" >&2; exit 2; }
      case $1 in
        # Relative to the folder of the call: a checkout builds in its own folder.
        --libtorch) libtorch=(--libtorch "$(realpath -m -- "$2")") ;;
        --out) out=$(realpath -m -- "$2") ;;
        --device) device=$2 ;;
        --runs) runs=$2 ;;
        --seconds) seconds=$2 ;;
        --train) train=$(realpath -e -- "$2") ;;
      esac
      shift 2
      ;;
    *) rest+=("$1"); shift ;;
  esac
done

if [ -x "$here/run" ]; then
  run=("$here/run" "${libtorch[@]}")
  bench=("${run[@]}" bench_gpu)
  trainer=("${run[@]}" fastganseg-train)
  script=$here/bench_pytorch.py
else
  cd "$here/.."
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  [ ${#libtorch[@]} -eq 0 ] || export LIBTORCH=${libtorch[1]}
  cargo build --release --workspace --example bench_gpu --bin fastganseg-train
  bench=("${CARGO_TARGET_DIR:-target}/release/examples/bench_gpu")
  trainer=("${CARGO_TARGET_DIR:-target}/release/fastganseg-train")
  script=$here/bench_pytorch.py
fi

# Building does not count.
SECONDS=0
mkdir -p "$out"
{
  uname -srm
  grep -m 1 'model name' /proc/cpuinfo || true
  nproc
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit --format=csv 2>/dev/null ||
    echo "nvidia-smi is not available"
} | tee "$out/machine.txt"

# Runs the benchmark with a time limit in seconds, and writes its output to FOLDER/STAGE.log.
stage() {
  local name=$1 limit=$2
  shift 2
  mkdir -p "$out/$name"
  local status=0
  RUST_BACKTRACE=1 timeout "$limit" "${bench[@]}" --stage "$name" --device "$device" --out "$out/$name" "$@" "${rest[@]}" \
    2>"$out/$name-errors.log" | tee "$out/$name.log" || status=$?
  cat "$out/$name-errors.log" >&2
  [ $status != 124 ] || echo "$name: ended after $limit s; the results up to here are in $out/$name" >&2
  return $status
}

# Collects what is needed to find the cause of a failure.
diagnose() {
  {
    echo "== results"
    cat "$out/check.log" || true
    echo "== errors"
    cat "$out/check-errors.log" || true
    echo "== environment"
    env | grep -E '^(CUDA|NVIDIA|LD_|LIBTORCH|PYTHON|FASTGANSEG)' || true
    echo "== driver"
    nvidia-smi 2>&1 || true
    ls -l /dev/nvidia* 2>&1 || true
    ldconfig -p 2>/dev/null | grep -E 'libcuda|libnv' || true
    echo "== libtorch"
    python3 -c 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available(), torch.__path__)' 2>&1 || true
  } >"$out/failure.txt"
  echo "bench-gpu: error: the check failed; see $out/failure.txt" >&2
}

stage check 120 || { diagnose; exit 1; }
status=0
stage table 360 --runs "$runs" || status=$?
if [ $pytorch = yes ]; then
  if python3 -c 'import torch' 2>/dev/null; then
    # The compiler's messages about each kernel go to a log.
    timeout 240 python3 "$script" "$out/table" --device "$device" --runs "$runs" 2>"$out/pytorch.log" || {
      status=$?
      tail -n 5 "$out/pytorch.log" >&2
    }
  else
    echo "pytorch   skipped: python3 has no torch"
  fi
fi
if [ -n "$train" ]; then
  left=$((seconds - SECONDS))
  if [ $left -ge 30 ]; then
    # The interrupt makes the trainer save a checkpoint and end.
    trained=0
    timeout --signal INT --kill-after 30 $left "${trainer[@]}" train --config "$train" --set "device=\"$device\"" \
      --out "$out/train" 2>&1 | tee "$out/train.log" || trained=$?
    # 124: the time is over.
    [ $trained = 0 ] || [ $trained = 124 ] || status=$trained
  else
    echo "train     skipped: $left s are left" >&2
  fi
fi
exit $status
