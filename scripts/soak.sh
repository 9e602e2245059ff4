#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Plays many frames and records the memory; see `scripts/soak.sh --help`.
set -euo pipefail

case ${1:-} in
  -h | --help)
    cat <<'EOF'
usage: scripts/soak.sh [FRAMES [FOLDER]]

Plays FRAMES frames (default 100000) through a pipeline with the smallest network, writes soak.csv and soak.png to
FOLDER (default target/soak), and prints by how many percent memory changed after warm-up.

Environment:
  PROFILE=dev  build with fewer optimisations, which is faster
EOF
    exit 0
    ;;
esac
frames=${1:-100000}
case $frames in *[!0-9]* | '') echo "soak: error: $frames is not a number of frames" >&2; exit 2 ;; esac

folder=${2:+$(realpath -m -- "$2")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
folder=${folder:-${CARGO_TARGET_DIR:-target}/soak}
mkdir -p "$folder"
# Threads should not spin while they wait.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
cargo run --profile "${PROFILE:-release}" --example soak -- "$frames" "$folder/soak.csv" "$folder/soak.png"
echo "wrote $folder/soak.csv and $folder/soak.png"
