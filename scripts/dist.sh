#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Builds a release archive. See `scripts/dist.sh --help`.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/dist.sh [--deb]

Packs the plugin, the trainer, libtorch's CPU libraries, the scripts of pipelines/ and the licences into
target/dist/fastganseg-VERSION-linux-x86_64.tar.xz. The archive runs from any folder on x86-64 Linux with glibc 2.36 or
newer (as on the build machine) and GStreamer 1.22 or newer.

  --deb   pack a package for Debian 12, Debian 13 and derivatives instead: target/dist/fastganseg_VERSION-1_amd64.deb
EOF
}
deb=no
case ${1:-} in -h | --help) usage; exit 0 ;; --deb) deb=yes ;; '') ;; *) usage >&2; exit 2 ;; esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=fastganseg-$version-linux-x86_64
stage=$target/dist/$name

command -v chrpath >/dev/null ||
  { echo "dist: error: chrpath is missing (on Debian and Ubuntu: apt install chrpath)" >&2; exit 1; }
[ $deb = no ] || command -v cargo-deb >/dev/null ||
  { echo "dist: error: cargo-deb is missing: cargo install cargo-deb" >&2; exit 1; }
cargo build --release --workspace
rm -rf "$stage"
mkdir -p "$stage/bin" "$stage/lib/gstreamer-1.0" "$stage/licences"
scripts/install.sh "$stage/lib/gstreamer-1.0"
rm -f "$stage/lib/fastganseg/.installed"
install -m 755 "$target/release/fastganseg-train" "$stage/bin/"
chrpath -r '$ORIGIN/../fastganseg' "$stage/lib/gstreamer-1.0/libgstfastganseg.so" >/dev/null
chrpath -r '$ORIGIN/../lib/fastganseg' "$stage/bin/fastganseg-train" >/dev/null
cp -R pipelines docs README.md CHANGELOG.md "$stage/"
cp LICENSE "$stage/licences/fastganseg-MPL-2.0.txt"
cp models/MODEL_CARD.md "$stage/licences/lite-weights.md"
cp models/LARGE_CARD.md "$stage/licences/large-weights.md"
cp models/PROMPT_CARD.md "$stage/licences/prompt-weights.md"
cp models/PERSON_CARD.md "$stage/licences/person-weights.md"
# The wheels have them beside their libraries.
site=$(dirname "${LIBTORCH:-.libtorch/torch}")
for licence in "$site"/{torch,nvidia_cuda_runtime,nvidia_cuda_cupti}-*.dist-info/licenses/{LICENSE,NOTICE,License.txt}; do
  if [ -e "$licence" ]; then
    package=${licence#"$site"/}
    cp "$licence" "$stage/licences/${package%%-*}-$(basename "$licence")"
  fi
done
for library in "$stage"/lib/fastganseg/*; do
  case ${library##*/} in
    libtorch_cpu.so) package=torch ;;
    libcudart*) package=nvidia_cuda_runtime ;;
    libcupti*) package=nvidia_cuda_cupti ;;
    *) continue ;;
  esac
  compgen -G "$stage/licences/$package-*" >/dev/null ||
    { echo "dist: error: the licence of ${library##*/} is not in $site/$package-*.dist-info: build with scripts/setup.sh" >&2; exit 1; }
done
for binary in "$stage"/bin/* "$stage"/lib/gstreamer-1.0/*; do
  if readelf -d "$binary" | grep -E 'R(UN)?PATH' | grep -F "$PWD" >/dev/null; then
    echo "dist: error: $binary contains an RPATH of this machine" >&2
    exit 1
  fi
done
if [ $deb = yes ]; then
  # Cargo.toml names the files below target/dist/deb. The trainer looks for libtorch in /usr/lib/fastganseg.
  mkdir -p target/dist
  ln -sfn "$(realpath "$stage")" target/dist/deb
  ln -sfn x86_64-linux-gnu/fastganseg "$stage/libtorch"
  exec cargo deb --no-build --no-strip --compress-system --compress-type gzip --fast --output "$target/dist/"
fi
tar -C "$target/dist" -cf - "$name" | xz -T0 -3 >"$target/dist/$name.tar.xz"
echo "$target/dist/$name.tar.xz"
