# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# Functions shared by the scripts of this folder, which source it.

# Use the plugin of this checkout if it is built, otherwise the installed one.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for profile in release debug; do
  plugin=${CARGO_TARGET_DIR:-$here/target}/$profile
  if [ -e "$plugin/libgstfastganseg.so" ]; then
    # The user's own path has priority.
    export GST_PLUGIN_PATH=${GST_PLUGIN_PATH:+$GST_PLUGIN_PATH:}$plugin
    break
  fi
done

# fail MESSAGE: print an error and exit.
fail() {
  printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# need_files FILE...: fail unless every file is readable.
need_files() {
  local file
  for file in "$@"; do
    if ! [ -f "$file" ] || ! [ -r "$file" ]; then fail "cannot read $file"; fi
  done
}

# need_elements ELEMENT...: fail unless every GStreamer element is installed.
need_elements() {
  local element
  command -v gst-inspect-1.0 >/dev/null || fail "gst-inspect-1.0 is not installed: run scripts/setup.sh"
  for element in "$@"; do
    gst-inspect-1.0 "$element" >/dev/null 2>&1 ||
      if [ "$element" = fastganseg ]; then
        fail "the element fastganseg is not available: run 'make build' or 'make install' (see docs/troubleshooting.md)"
      else
        fail "the GStreamer element $element is not installed: run scripts/setup.sh"
      fi
  done
}

# Without grep -q, which ends early: with pipefail the broken pipe would count as a failure.
has_stream() { LC_ALL=C gst-discoverer-1.0 "$2" 2>/dev/null | grep "^ *$1 #" >/dev/null; }
has_video() { has_stream video "$1"; }
has_audio() { has_stream audio "$1"; }

# video_facts FILE: prints "WIDTH HEIGHT RATE FRAMES". The size is that after rotation; FRAMES is estimated from the
# duration.
video_facts() {
  LC_ALL=C gst-discoverer-1.0 -v "$1" 2>/dev/null | awk '
    $1 == "Duration:" && !seconds {split($2, t, ":"); seconds = 3600 * t[1] + 60 * t[2] + t[3]}
    $1 == "Width:" && !width {width = $2}
    $1 == "Height:" && !height {height = $2}
    $1 == "Frame" && !rate {rate = $3; split(rate, f, "/")}
    $2 == "orientation:" && $3 ~ /rotate-(90|270)$/ {sideways = 1}
    END {
      if (!height || !(f[1] > 0)) exit 1
      print sideways ? height " " width : width " " height, rate, int(seconds * f[1] / f[2] + 0.5)
    }'
}

# turn_upright FILE: sets the array `upright` to elements, after a leading "!", that rotate the decoded video by its
# rotation tag, which phones write. The array is empty without a tag: videoflip does not accept every format.
turn_upright() {
  upright=()
  if LC_ALL=C gst-discoverer-1.0 -v "$1" 2>/dev/null |
    grep -E 'image orientation: *(rotate-(90|180|270)|flip-)' >/dev/null; then
    need_elements videoflip
    upright=(! videoconvert ! videoflip video-direction=auto)
  fi
}

# open_input IN: sets the array `source` to a source element for a video file or a camera, and `upright` as turn_upright
# does.
open_input() {
  if [ -c "$1" ]; then
    source=(v4l2src "device=$1")
    upright=()
  else
    need_files "$1"
    has_video "$1" || fail "$1 has no video that GStreamer can decode"
    source=(filesrc "location=$1")
    turn_upright "$1"
  fi
}
