#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Installs the dependencies of fastganseg. See `scripts/setup.sh --help`.
set -euo pipefail

TORCH=2.11.0
CUDA_RUNTIME=13.0.96
CUDA_CUPTI=13.0.85
CUDA_CCCL=13.0.85
GSTREAMER=1.22
GLIBC=2.28
# Disk space for the download and the unpacked files together, in MiB.
MIN_SPACE_CPU=2000
MIN_SPACE_CUDA=6500

# Build dependencies, then run-time dependencies. -base-apps has gst-discoverer-1.0, -libav decodes H.264 and encodes
# AAC, -ugly encodes H.264, and ffmpeg writes WebM with alpha.
PACKAGES=(
  make g++ pkg-config
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-base-apps gstreamer1.0-plugins-good
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav
  ffmpeg
)
# `make test` drives docs/mask.html in a browser.
if [ -n "${FASTGANSEG_REQUIRE_ALL:-}" ] && ! command -v chromedriver >/dev/null; then
  PACKAGES+=(chromium chromium-driver)
fi

usage() {
  cat <<EOF
usage: scripts/setup.sh [--check]

Installs the dependencies of fastganseg on Debian 12 and 13, Ubuntu 24.04 and derivatives:
  - GStreamer's development and run-time packages and a C++ compiler, with apt
    (as root, or through sudo);
  - libtorch $TORCH in .libtorch/ of this checkout, only for this project.
Does nothing if everything is installed.

  --check       install nothing, only list what is missing (exit status 1 if anything is)
  --help        show this text

Environment:
  CUDA=1        also install the CUDA libraries (2.7 GB), with which libtorch runs on NVIDIA GPUs
  APT=0         do not install system packages: GStreamer is installed by other means
  LIBTORCH=DIR  use your own libtorch $TORCH; nothing is downloaded
  PYTHON=EXE    the Python whose pip downloads libtorch (any version with pip 21 or newer)
  FASTGANSEG_REQUIRE_ALL=1
                also install what only tests need: Chromium and its driver (make test sets this)
EOF
}

say() { printf 'setup: %s\n' "$*"; }
# die ERROR [REMEDY…]: print the error, then one remedy per line, and exit.
die() {
  printf 'setup: error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}
# at_least VERSION MINIMUM: compares versions.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

check_only=no
for arg in "$@"; do
  case $arg in
    --check) check_only=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown argument: $arg" ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
local_libtorch=$root/.libtorch
missing=()

# ---- platform ----

[ "$(uname -sm)" = "Linux x86_64" ] ||
  die "this is $(uname -s) on $(uname -m); the script supports only Linux on x86-64" \
    "Manually: install GStreamer $GSTREAMER or newer with its development files, and libtorch $TORCH," \
    "then build with LIBTORCH=/path/to/libtorch cargo build --release"
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}') || true
[ -n "$glibc" ] ||
  die "this system's C library is not glibc, which libtorch needs" \
    "Use a glibc distribution (Debian 12 or Ubuntu 24.04), for instance in a container."
at_least "$glibc" "$GLIBC" ||
  die "glibc $glibc is too old: libtorch $TORCH needs $GLIBC" "Upgrade to Debian 12, Ubuntu 24.04 or newer."

# ---- Rust ----

rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Non-login shells often lack rustup's entry in PATH.
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
  die "Rust (cargo and rustc) is not installed" \
    "Install it with rustup (https://rustup.rs), open a new shell, and run this script again." \
    "The distribution's own Rust is usually too old: $rust_wanted or newer is needed."
fi
rust_found=$(rustc --version | awk '{print $2}') ||
  die "rustc does not run (its message is above)" "With rustup, run: rustup default stable"
at_least "${rust_found%%-*}" "$rust_wanted" ||
  die "Rust $rust_found is too old: $rust_wanted or newer is needed" \
    "Run: rustup update stable   (for a Rust from the distribution: install rustup from https://rustup.rs)"

# ---- system packages ----

# not_installed PACKAGE...: prints the packages that are not installed.
not_installed() {
  comm -23 <(printf '%s\n' "$@" | sort -u) \
    <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^.i  *//p' | sort -u)
}

apt_install() {
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      die "these packages are missing and sudo is not installed: $*" "Run as root: apt-get install $*"
    as_root=(sudo)
    # Without a terminal sudo cannot ask for a password: fail now.
    [ -t 0 ] || sudo -n true 2>/dev/null ||
      die "these packages are missing and sudo needs a password: $*" "Run in a terminal: sudo apt-get install $*"
    say "installing with sudo: $*"
  else
    say "installing: $*"
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2)
  # If the refresh fails, the existing lists may suffice.
  "${apt[@]}" update || say "could not refresh the package lists; using the existing ones"
  "${apt[@]}" install -y --no-install-recommends "$@" ||
    die "apt-get could not install: $*" \
      "No network? Check the connection and any proxy (Acquire::http::Proxy in /etc/apt/apt.conf.d)." \
      "No such package? Ubuntu keeps some in 'universe': sudo add-apt-repository universe" \
      "No chromium? Ubuntu lacks the package: put Google Chrome and its chromedriver in PATH, or skip the tests of" \
      "  docs/mask.html: make test FASTGANSEG_REQUIRE_ALL=" \
      "Disk full? See: df -h / /var"
}

if [ "${APT:-1}" != 0 ]; then
  if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    mapfile -t wanted < <(not_installed "${PACKAGES[@]}")
    if [ ${#wanted[@]} -gt 0 ]; then
      if [ $check_only = yes ]; then missing+=("packages: ${wanted[*]}"); else apt_install "${wanted[@]}"; fi
    fi
  elif ! pkg-config --exists gstreamer-1.0 gstreamer-video-1.0 gstreamer-app-1.0 2>/dev/null ||
    ! command -v gst-launch-1.0 >/dev/null || ! command -v c++ >/dev/null; then
    die "apt-get is not available, and GStreamer's development files or a C++ compiler are missing" \
      "Install with your package manager, then run this script again:" \
      "  Fedora:   make gcc-c++ pkgconf gstreamer1-devel gstreamer1-plugins-base-devel gstreamer1-plugins-good" \
      "            gstreamer1-plugins-bad-free gstreamer1-plugins-ugly gstreamer1-plugin-libav python3-pip" \
      "  Arch:     base-devel gstreamer gst-plugins-base gst-plugins-good gst-plugins-bad gst-plugins-ugly" \
      "            gst-libav python-pip" \
      "  openSUSE: make gcc-c++ pkgconf gstreamer-devel gstreamer-plugins-base-devel gstreamer-plugins-good" \
      "            gstreamer-plugins-bad gstreamer-plugins-ugly gstreamer-plugins-libav python3-pip"
  fi
fi
if [ $check_only = no ] || command -v pkg-config >/dev/null; then
  gstreamer=$(pkg-config --modversion gstreamer-1.0 2>/dev/null) || gstreamer=
  if [ -z "$gstreamer" ]; then
    [ $check_only = yes ] || die "pkg-config finds no gstreamer-1.0" \
      "Install GStreamer's development files (libgstreamer1.0-dev), or put their .pc files on PKG_CONFIG_PATH."
    [ ${#missing[@]} -gt 0 ] || missing+=("gstreamer-1.0 for pkg-config")
  else
    at_least "$gstreamer" "$GSTREAMER" ||
      die "GStreamer $gstreamer is too old: $GSTREAMER or newer is needed" "Upgrade to Debian 12, Ubuntu 24.04 or newer."
  fi
fi

# ---- libtorch ----

# libtorch_version DIR: prints the version of a wheel's torch folder or an unpacked libtorch archive, if it is known.
libtorch_version() {
  if [ -f "$1/build-version" ]; then
    cut -d + -f 1 "$1/build-version"
  elif [ -f "$1/version.py" ]; then
    sed -n "s/^__version__ = '\([^+']*\).*/\1/p" "$1/version.py"
  fi
}

# Folders are moved here complete, so an existing one is complete.
has_libtorch() {
  [ -e "$local_libtorch/torch/lib/libtorch_cpu.so" ] && [ "$(libtorch_version "$local_libtorch/torch")" = "$TORCH" ] &&
    [ -d "$local_libtorch/nvidia_cuda_runtime-$CUDA_RUNTIME.dist-info" ] &&
    [ -d "$local_libtorch/nvidia_cuda_cupti-$CUDA_CUPTI.dist-info" ]
}
has_cuda() { compgen -G "$local_libtorch/nvidia_cudnn_*.dist-info" >/dev/null && [ -e "$local_libtorch/.cuda-complete" ]; }

need_space() {
  local free
  free=$(df -Pm "$root" | awk 'NR == 2 {print $4}')
  [ "$free" -ge "$1" ] ||
    die "not enough disk space: $free MiB free in $root, about $1 MiB needed for libtorch" \
      "Free some space (cargo clean removes build output), or set LIBTORCH to a libtorch $TORCH elsewhere."
}

# Any Python with a recent pip works: the Python version and platform of the wheels are passed to pip, and only their
# C++ libraries are used.
find_pip() {
  local python version programs=(python3 /usr/bin/python3 python3.{14,13,12,11,10,9} python)
  [ -z "${PYTHON:-}" ] || programs=("$PYTHON")
  for python in "${programs[@]}"; do
    command -v "$python" >/dev/null || continue
    version=$("$python" -m pip --version 2>/dev/null | awk '{print $2}') || continue
    if [ -n "$version" ] && at_least "$version" 21; then
      pip=("$python" -m pip)
      return 0
    fi
  done
  [ -z "${PYTHON:-}" ] ||
    die "PYTHON=$PYTHON has no pip 21 or newer" "Unset PYTHON to use another Python, or install pip for it."
  return 1
}

# fetch DIR ARG…: downloads requirements with pip and unpacks them in DIR.
fetch() {
  local into=$1
  shift
  mkdir -p "$into/tmp"
  # TMPDIR: pip unpacks on the file system that was checked, so that the later move is a rename.
  # Settings of the user that exclude --target do not apply.
  TMPDIR=$into/tmp PIP_ROOT_USER_ACTION=ignore PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 \
    "${pip[@]}" --disable-pip-version-check install --progress-bar "$progress" \
    --no-cache-dir --no-compile --no-warn-script-location --ignore-requires-python \
    --only-binary :all: --implementation cp --python-version 3.11 --abi cp311 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --target "$into/site" "$@" || return 1
  rm -rf "$into/tmp"
}

cannot_fetch() {
  die "pip could not download $1 (its message is above)" \
    "No network? Check the connection, any proxy (https_proxy), and pip's index (${pip[*]} config list)." \
    "A certificate error? Name the proxy's certificate: PIP_CERT=/path/to/ca.crt scripts/setup.sh" \
    "Disk full? See: df -h ." \
    "Or install libtorch $TORCH by other means and build with LIBTORCH=/path/to/libtorch."
}

if [ -n "${LIBTORCH:-}" ] && [ "$(readlink -m "$LIBTORCH")" != "$(readlink -m "$local_libtorch/torch")" ]; then
  [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] ||
    die "LIBTORCH is set to $LIBTORCH, which has no lib/libtorch_cpu.so" \
      "Set it to the folder that contains lib/ and include/, or unset it to download libtorch."
  found=$(libtorch_version "$LIBTORCH")
  [ -z "$found" ] || [ "$found" = "$TORCH" ] ||
    die "LIBTORCH is set to libtorch $found in $LIBTORCH; $TORCH is needed" \
      "Set it to libtorch $TORCH, or unset it to download that."
  libtorch=$LIBTORCH
else
  libtorch=.libtorch/torch
  work=
  trap '[ -z "$work" ] || rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  wants_cuda() { [ "${CUDA:-0}" = 1 ] && ! has_cuda; }

  if has_libtorch && ! wants_cuda; then
    :
  elif [ $check_only = yes ]; then
    has_libtorch && missing+=("libtorch's CUDA libraries") || missing+=("libtorch $TORCH")
  else
    # One set-up at a time; a second one waits and has nothing to do.
    exec 9>"$root/.libtorch.lock"
    flock -n 9 || { say "waiting for another set-up of this checkout"; flock 9; }
    rm -rf "$root"/.libtorch.part.*
    [ -t 2 ] && progress=on || progress=off
    if ! find_pip; then
      if [ "${APT:-1}" != 0 ] && command -v apt-get >/dev/null; then apt_install python3-pip; fi
      find_pip || die "no Python with pip 21 or newer was found" \
        "Install python3-pip, or set PYTHON=/path/to/python3, or set LIBTORCH to a libtorch $TORCH."
    fi

    if ! has_libtorch; then
      need_space $MIN_SPACE_CPU
      work=$(mktemp -d "$root/.libtorch.part.XXXXXX")
      say "downloading libtorch $TORCH (0.6 GB) into .libtorch/"
      fetch "$work" --no-deps "torch==$TORCH" "nvidia-cuda-runtime==$CUDA_RUNTIME" "nvidia-cuda-cupti==$CUDA_CUPTI" ||
        cannot_fetch "libtorch $TORCH"
      # Replace another version. A link is replaced, not followed.
      if [ -L "$local_libtorch" ]; then rm "$local_libtorch"; elif [ -e "$local_libtorch" ]; then mv "$local_libtorch" "$work/old"; fi
      mv "$work/site" "$local_libtorch"
      rm -rf "$work"
      work=
    fi

    if wants_cuda; then
      need_space $MIN_SPACE_CUDA
      # Next to the real folder, so that the moves below are renames.
      real=$(readlink -f "$local_libtorch")
      work=$(mktemp -d "$(dirname "$real")/.libtorch.part.XXXXXX")
      sed -n 's/^Requires-Dist: \(\(nvidia-\|cuda-toolkit\).*\)/\1/p' \
        "$real/torch-$TORCH.dist-info/METADATA" >"$work/requirements.txt"
      # Headers of the training program's NCCL support.
      echo "nvidia-cuda-cccl==$CUDA_CCCL" >>"$work/requirements.txt"
      say "downloading the CUDA libraries (2.7 GB) into .libtorch/"
      fetch "$work" --requirement "$work/requirements.txt" || cannot_fetch "the CUDA libraries"
      rm -f "$real/.cuda-complete"
      rm -rf "$real"/nvidia_*.dist-info "$real"/cuda_toolkit-*.dist-info
      mv "$real/nvidia" "$work/old"
      mv "$work/site/nvidia" "$real/nvidia"
      mv "$work/site"/*.dist-info "$real/"
      touch "$real/.cuda-complete"
      rm -rf "$work"
      work=
    fi
  fi
fi

if [ ${#missing[@]} -gt 0 ]; then
  printf 'setup: missing %s\n' "${missing[@]}"
  exit 1
fi
say "ready: Rust $rust_found, GStreamer ${gstreamer:-?}, libtorch $TORCH in $libtorch"
