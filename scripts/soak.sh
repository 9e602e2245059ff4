#!/usr/bin/env bash
# Plays a hundred thousand frames and watches the memory; see `scripts/soak.sh --help`.
set -euo pipefail

case ${1:-} in
  -h | --help)
    cat <<'EOF'
usage: scripts/soak.sh [FRAMES [FOLDER]]

Plays FRAMES (100000) frames through a pipeline with the smallest network, writes FOLDER/soak.csv and
FOLDER/soak.png (target/soak), and says by how many percent memory moved after warm-up.

Environment:
  PROFILE=dev  build without the last optimisations, which is quicker
EOF
    exit 0
    ;;
esac
frames=${1:-100000}
case $frames in *[!0-9]* | '') echo "soak: error: $frames is no number of frames" >&2; exit 2 ;; esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
folder=${2:-${CARGO_TARGET_DIR:-target}/soak}
mkdir -p "$folder"
# Threads that spin while they wait would only heat the room.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
cargo run --profile "${PROFILE:-release}" --example soak -- "$frames" "$folder/soak.csv" "$folder/soak.png"
echo "wrote $folder/soak.csv and $folder/soak.png"
