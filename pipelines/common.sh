# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# Functions shared by the scripts of this folder, which source it.

# Use the plugin of this checkout if it is built, otherwise the installed one.
here=$(CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
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
  local element program
  for program in gst-inspect-1.0 gst-launch-1.0 gst-discoverer-1.0 awk; do
    command -v "$program" >/dev/null || fail "the program $program is not installed: run scripts/setup.sh"
  done
  for element in "$@"; do
    gst-inspect-1.0 "$element" >/dev/null 2>&1 ||
      if [ "$element" = fastganseg ]; then
        fail "the element fastganseg is not available: run 'make build' or 'make install' (see docs/troubleshooting.md)"
      else
        fail "the GStreamer element $element is not installed: run scripts/setup.sh"
      fi
  done
}

# argument FILE: prints the name so that programs do not take it for an option.
argument() {
  case $1 in -*) printf './%s' "$1" ;; *) printf '%s' "$1" ;; esac
}

# quote VALUE: prints a value in quotes for a pipeline description.
quote() {
  local value=${1//\\/\\\\}
  printf '"%s"' "${value//\"/\\\"}"
}

# check_output OUT INPUT...: fail if OUT cannot be written, or if it is one of the input files.
check_output() {
  local out=$1 input
  shift
  for input in "$@"; do
    if [ "$input" -ef "$out" ]; then fail "$out is an input: give the output another name"; fi
  done
  if { [ -e "$out" ] && ! [ -f "$out" ]; } || ! [ -d "$(dirname -- "$out")" ] || ! [ -w "$(dirname -- "$out")" ]; then
    fail "cannot write $out: it must be a file in a folder that exists and is writable"
  fi
}

# check_pattern OUT: fail unless the pattern has exactly one number, such as %05d.
check_pattern() {
  local number='%0?[0-9]*d' plain='([^%]|%%)*'
  [[ $1 =~ ^$plain$number$plain$ ]] || fail "$1: use one pattern such as %05d, and %% for other per cent signs"
}

# partial_of OUT: prints the name of a file beside OUT that is written first.
partial_of() { printf '%s/.%s.%s.part' "$(dirname -- "$1")" "$(basename -- "$1")" "$$"; }

# write_to OUT COMMAND...: runs a command that writes to the file "$partial", and renames that file to OUT. A failure leaves
# an earlier OUT as it is.
write_to() {
  local out=$1 status=0
  shift
  trap 'rm -f -- "$partial"' EXIT
  "$@" || status=$?
  if [ "$status" -ne 0 ] || ! [ -s "$partial" ]; then fail "$out is not written"; fi
  mv -f -- "$partial" "$(readlink -f -- "$out")"
}

# Without grep -q, which ends early: with pipefail the broken pipe would count as a failure.
has_stream() { LC_ALL=C gst-discoverer-1.0 "$(argument "$2")" 2>/dev/null | grep "^ *$1 #" >/dev/null; }
has_video() { has_stream video "$1"; }
has_audio() { has_stream audio "$1"; }

# video_facts FILE: prints "WIDTH HEIGHT RATE". The size is that after rotation, in square pixels and even, as encoders need it.
video_facts() {
  LC_ALL=C gst-discoverer-1.0 -v "$(argument "$1")" 2>/dev/null | awk '
    function even(x) {return x < 2 ? 2 : 2 * int(x / 2 + 0.5)}
    $1 == "Width:" && !width {width = $2}
    $1 == "Height:" && !height {height = $2}
    $1 == "Pixel" && $2 == "aspect" && !aspect {split($4, p, "/"); aspect = p[2] > 0 ? p[1] / p[2] : 1}
    $1 == "Frame" && !rate {rate = $3; split(rate, f, "/")}
    $2 == "orientation:" && $3 ~ /rotate-(90|270)$/ {sideways = 1}
    END {
      if (!height || !(f[1] > 0)) exit 1
      width = even(width * (aspect > 0 ? aspect : 1))
      height = even(height)
      print sideways ? height " " width : width " " height, rate
    }'
}

# count_frames FILE RATE: prints the number of frames at the rate until the video ends. Decodes the file: its duration may be
# that of the sound.
count_frames() {
  LC_ALL=C gst-launch-1.0 -v filesrc location="$(quote "$1")" ! decodebin ! video/x-raw ! fakesink silent=false sync=false \
    2>/dev/null | awk -v rate="$2" '
    function seconds(text, t) {sub(/,$/, "", text); split(text, t, ":"); return 3600 * t[1] + 60 * t[2] + t[3]}
    BEGIN {split(rate, f, "/")}
    /last-message = chain/ {
      for (i = 1; i < NF; i++) {
        if ($i == "pts:") pts = $(i + 1)
        if ($i == "duration:") duration = $(i + 1)
      }
      if (pts ~ /^none/) next
      begin = seconds(pts)
      end = begin + (duration ~ /^none/ ? f[2] / f[1] : seconds(duration))
      if (!count++ || begin < first) first = begin
      if (end > last) last = end
    }
    END {frames = int((last - first) * f[1] / f[2] + 0.5); if (frames < 1) exit 1; print frames}'
}

# turn_upright FILE: sets the array `upright` to elements, after a leading "!", that rotate the decoded video by its
# rotation tag, which phones write. The array is empty without a tag: videoflip does not accept every format.
turn_upright() {
  upright=()
  if LC_ALL=C gst-discoverer-1.0 -v "$(argument "$1")" 2>/dev/null |
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
    source=(filesrc "location=$(quote "$1")")
    turn_upright "$1"
  fi
}
