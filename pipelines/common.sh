# shellcheck shell=bash
# What the scripts beside this file share. Not run by itself.

# The plugin of this checkout, where one is built; otherwise whatever is installed.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for profile in release debug; do
  plugin=${CARGO_TARGET_DIR:-$here/target}/$profile
  if [ -e "$plugin/libgstfastganseg.so" ]; then
    # After what the user has set: that comes first.
    export GST_PLUGIN_PATH=${GST_PLUGIN_PATH:+$GST_PLUGIN_PATH:}$plugin
    break
  fi
done

# fail WHAT: tell and stop.
fail() {
  printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Every argument is a file that can be read.
need_files() {
  local file
  for file in "$@"; do
    if ! [ -f "$file" ] || ! [ -r "$file" ]; then fail "cannot read $file"; fi
  done
}

# Every argument is an installed GStreamer element.
need_elements() {
  local element
  command -v gst-inspect-1.0 >/dev/null || fail "there is no gst-inspect-1.0: run scripts/setup.sh"
  for element in "$@"; do
    gst-inspect-1.0 "$element" >/dev/null 2>&1 ||
      if [ "$element" = fastganseg ]; then
        fail "there is no fastganseg element: run 'make build', or 'make install' (see Troubleshooting in README.md)"
      else
        fail "there is no GStreamer element $element: run scripts/setup.sh"
      fi
  done
}

# Read to the end: a grep that leaves early would break the pipe, and with it the script.
has_stream() { LC_ALL=C gst-discoverer-1.0 "$2" 2>/dev/null | grep "^ *$1 #" >/dev/null; }
has_video() { has_stream video "$1"; }
has_audio() { has_stream audio "$1"; }

# video_facts FILE: prints "WIDTH HEIGHT RATE FRAMES", the size upright, the last estimated from the duration.
video_facts() {
  LC_ALL=C gst-discoverer-1.0 -v "$1" 2>/dev/null | awk '
    $1 == "Duration:" && !seconds {split($2, t, ":"); seconds = 3600 * t[1] + 60 * t[2] + t[3]}
    $1 == "Width:" && !width {width = $2}
    $1 == "Height:" && !height {height = $2}
    $1 == "Frame" && !rate {rate = $3; split(rate, f, "/")}
    $2 == "orientation:" && $3 ~ /rotate-(90|270)$/ {lies = 1}
    END {
      if (!height || !(f[1] > 0)) exit 1
      print lies ? height " " width : width " " height, rate, int(seconds * f[1] / f[2] + 0.5)
    }'
}

# turn_upright FILE: sets the array `upright` to what turns the decoded video as its rotation tag says (phones write
# one), with a leading "!". The array is empty if there is no such tag, for videoflip does not take every format.
turn_upright() {
  upright=()
  if LC_ALL=C gst-discoverer-1.0 -v "$1" 2>/dev/null |
    grep -E 'image orientation: *(rotate-(90|180|270)|flip-)' >/dev/null; then
    need_elements videoflip
    upright=(! videoconvert ! videoflip video-direction=auto)
  fi
}
