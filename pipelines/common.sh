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

# argument FILE: prints the name so that programs take it neither for an option nor for a URI.
argument() {
  case $1 in /*) printf '%s' "$1" ;; *) printf './%s' "$1" ;; esac
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
  if { [ -e "$out" ] && ! [ -f "$out" ]; } || ! [ -d "$(dirname -- "$out")" ] || ! [ -w "$(dirname -- "$out")" ] ||
    [ -z "$(readlink -f -- "$out")" ]; then
    fail "cannot write $out: it must be a file in a folder that exists and is writable"
  fi
}

# check_pattern OUT INPUT...: fail unless the pattern has exactly one number, such as %05d, and no file exists that it
# matches: frames of an earlier run would be mixed with the new ones.
check_pattern() {
  local pattern=$1 format plain='(([^%]|%%)*)' prefix suffix file number name input existing=
  [[ $pattern =~ ^$plain(%0?[0-9]*d)$plain$ ]] || fail "$pattern: use one pattern such as %05d, and %% for other per cent signs"
  prefix=${BASH_REMATCH[1]//%%/%} format=${BASH_REMATCH[3]} suffix=${BASH_REMATCH[4]//%%/%}
  shift
  for file in "$prefix"*"$suffix"; do
    number=${file#"$prefix"} number=${number%"$suffix"}
    [[ $number =~ ^\ *([0-9]+)$ ]] || continue
    # shellcheck disable=SC2059 # the format is the user's
    printf -v name "$format" "$((10#${BASH_REMATCH[1]}))"
    [ "$name" = "$number" ] || continue
    existing=${existing:-$file}
    for input in "$@"; do
      if [ "$input" -ef "$file" ]; then fail "$pattern matches the input $file: use another pattern"; fi
    done
  done
  [ -z "$existing" ] || fail "$pattern matches $existing, which exists: remove the earlier frames, or use another pattern"
}

# partial_of OUT: prints the name of a file beside OUT that is written first.
partial_of() { printf '%s/.fastganseg.%s.part' "$(dirname -- "$1")" "$$"; }

# stop SIGNAL: ends the commands in the background, and then the script by the signal: shells show 128 + its number and
# leave their loops. The commands get TERM, because those in the background may ignore INT.
stop() {
  trap - "$1"
  # A process substitution is not a job, but $! is its process.
  # shellcheck disable=SC2046 # one argument for each process
  kill $(jobs -p) ${!:+"$!"} 2>/dev/null || true
  wait
  # The shell does not run the trap EXIT if it kills itself in a trap.
  rm -f -- "${partial:-}"
  kill "-$1" "$BASHPID"
}

# catch_signals: lets signals end the script also if they are sent to it alone, and if gst-launch-1.0 reports success when it
# is interrupted. The shell handles signals while it waits for commands in the background, but only after those in the
# foreground.
catch_signals() {
  local name
  for name in INT TERM HUP; do
    # shellcheck disable=SC2064 # expands now
    trap "stop $name" "$name"
  done
}
catch_signals

# run COMMAND...: runs a command until it ends or a signal ends the script.
run() {
  # Commands in the background would have no standard input.
  if { : <&0; } 2>/dev/null; then "$@" <&0 & else "$@" & fi
  wait %%
}

# write_to OUT COMMAND...: runs a command, usually `run`, that writes to the file "$partial", and renames that file to OUT. A
# failure or a signal leaves an earlier OUT as it is.
write_to() {
  local out=$1 status=0
  shift
  trap 'rm -f -- "$partial"' EXIT
  "$@" || status=$?
  if [ "$status" -ne 0 ] || ! [ -s "$partial" ]; then fail "$out is not written"; fi
  mv -f -- "$partial" "$(readlink -f -- "$out")"
}

# need_display SINK: fail if the sink opens a window and there is no display: some of GStreamer's sinks crash then.
need_display() {
  case $1 in
    autovideosink | glimagesink* | gtk*sink | qml*sink | waylandsink | ximagesink | xvimagesink)
      [ "$(uname -s)" != Linux ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] ||
        fail "$1 needs a display, but neither DISPLAY nor WAYLAND_DISPLAY is set: run the script in a desktop session, or" \
          "set SINK to another sink, such as kmssink on a console"
      ;;
  esac
}

# Without grep -q, which ends early: with pipefail the broken pipe would count as a failure.
has_stream() { LC_ALL=C gst-discoverer-1.0 "$(argument "$2")" 2>/dev/null | grep "^ *$1 #" >/dev/null; }
has_video() { has_stream video "$1"; }
has_audio() { has_stream audio "$1"; }

# need_video FILE: fail unless GStreamer can decode video of the file. GIF is refused: GStreamer reads its end for ever, and
# gives all of its frames the same time.
need_video() {
  [ "$(LC_ALL=C head -c 4 -- "$1" | tr -d '\0')" != GIF8 ] ||
    fail "$1 is a GIF, which GStreamer reads without an end: convert it to a video first, such as with" \
      "$(printf 'ffmpeg -i %q -c:v ffv1 %q' "$(argument "$1")" "$(argument "${1%.*}.mkv")")"
  has_video "$1" || fail "$1 has no video that GStreamer can decode"
}

# If two threads change properties at the same time, gst-launch-1.0 -v may print only one of the changes, because GStreamer
# declares the signal deep-notify with G_SIGNAL_NO_RECURSE. decoded_caps and count_frames repeat the command then.

# decoded_caps FILE TYPE: prints the caps of the file's decoded stream of the type video/x-raw or audio/x-raw. Other streams
# are not exposed: pads without links may block the demuxer of MPEG program streams.
decoded_caps() {
  local caps=
  for _ in {1..9}; do
    caps=$(LC_ALL=C gst-launch-1.0 -v filesrc location="$(quote "$1")" ! decodebin caps="$2(ANY)" expose-all-streams=false \
      ! "$2" ! fakesink num-buffers=1 2>/dev/null | sed -n 's/.*FakeSink.*: caps = //p') || [ -n "$caps" ] || return 1
    [ -z "$caps" ] || break
  done
  printf '%s\n' "$caps"
}

# video_facts FILE: prints "WIDTH HEIGHT RATE". The size is that after rotation, in square pixels and even, as encoders need it.
# The rate is 30/1 if the file has none.
video_facts() {
  { decoded_caps "$1" video/x-raw && LC_ALL=C gst-discoverer-1.0 -v "$(argument "$1")" 2>/dev/null; } | awk '
    function even(x) {return x < 2 ? 2 : 2 * int(x / 2 + 0.5)}
    function value(name, parts) {split($0, parts, ", " name "=[(][a-z]*[)]"); sub(/,.*/, "", parts[2]); return parts[2]}
    /^video/ && !height {
      width = value("width") + 0
      height = value("height") + 0
      split(value("pixel-aspect-ratio"), p, "/")
      rate = value("framerate")
    }
    $2 == "orientation:" && $3 ~ /rotate-(90|270)$/ {sideways = 1}
    END {
      if (!height) exit 1
      width = even(p[1] > 0 ? width * p[1] / p[2] : width)
      height = even(height)
      print sideways ? height " " width : width " " height, (rate + 0 > 0 ? rate : "30/1")
    }'
}

# make_square FILE: sets the array `square` to elements, after a leading "!", that mark anamorphic video as having square
# pixels: compositor scales frames to the width and height of its pad, but stretches them again by their pixel aspect ratio.
# The array is empty for square pixels.
make_square() {
  square=()
  if decoded_caps "$1" video/x-raw | grep 'pixel-aspect-ratio=' | grep -v 'pixel-aspect-ratio=[(]fraction[)]1/1' >/dev/null; then
    need_elements capssetter
    square=(! capssetter caps=video/x-raw,pixel-aspect-ratio=1/1)
  fi
}

# count_frames FILE RATE: prints "FRAMES START": the number of frames at the rate from the first one until the video ends, and
# the time at which the first one is due, in nanoseconds. Decodes the file: its duration may be that of the sound.
#
# If the first block of a Matroska file is a frame that is due after the start of the sound, matroskademux gives this frame
# (rarely more) the running time 0, and corrects that with a second segment. START is the right time then, less 2 ms: times
# in Matroska are rounded to milliseconds, and the second frame must not be due before the end of the first one.
count_frames() {
  catch_signals
  local status
  for _ in {1..9}; do
    status=0
    count_frames_once "$@" || status=$?
    [ "$status" -eq 3 ] || break
  done
  return "$status"
}

# count_frames_once FILE RATE: as count_frames, but exits with status 3 if the first segment is not printed.
count_frames_once() {
  LC_ALL=C gst-launch-1.0 -v filesrc location="$(quote "$1")" ! decodebin caps="video/x-raw(ANY)" expose-all-streams=false \
    ! video/x-raw ! fakesink silent=false sync=false 2>/dev/null | awk -v rate="$2" '
    function seconds(text, t) {sub(/,$/, "", text); split(text, t, ":"); return 3600 * t[1] + 60 * t[2] + t[3]}
    function field(name, parts) {split($0, parts, " " name "=[(]guint64[)]"); return parts[2] / 1e9}
    BEGIN {split(rate, f, "/")}
    /type: segment/ {
      segments++
      correction = field("base") - field("start") - shift
      if (count && field("base") == base && correction > 0) {
        first += correction
        last += correction
        early = .002
      }
      base = field("base")
      shift = base - field("start")
    }
    /last-message = chain/ {
      if (!segments) missing = 1
      for (i = 1; i < NF; i++) {
        if ($i == "pts:") pts = $(i + 1)
        if ($i == "duration:") duration = $(i + 1)
      }
      if (pts ~ /^none/) next
      begin = shift + seconds(pts)
      end = begin + (duration ~ /^none/ ? f[2] / f[1] : seconds(duration))
      if (!count++ || begin < first) first = begin
      if (end > last) last = end
    }
    END {
      if (missing) exit 3
      frames = int((last - first) * f[1] / f[2] + 0.5)
      if (frames < 1) exit 1
      printf "%d %.0f\n", frames, (first > early ? first - early : 0) * 1e9
    }' &
  wait %%
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

# deinterlace FILE: adds elements to `upright` that make interlaced video progressive, before it is rotated: each frame keeps
# its top field, and the lines between are interpolated. Films would comb otherwise, and compositor refuses a mixture.
deinterlace() {
  if decoded_caps "$1" video/x-raw | grep -E 'interlace-mode=[(]string[)](interleaved|mixed|fields|alternate)' >/dev/null; then
    need_elements deinterlace
    upright=(! videoconvert ! deinterlace mode=auto-strict fields=top "${upright[@]}")
  fi
}

# encode_sound FILE [ENCODER...]: sets the array `sound` to elements that encode the sound of the decodebin `in` for the muxer
# `out`, as AAC without other encoder elements. The array is empty if the file has no sound.
encode_sound() {
  local file=$1 channels positions=() masks=([2]=0x3 [3]=0x7 [4]=0x33 [5]=0x37 [6]=0x3f [7]=0x13f [8]=0xc3f)
  sound=()
  shift
  [ $# -gt 0 ] || set -- avenc_aac ! aacparse
  has_audio "$file" || return 0
  need_elements "$1"
  # Encoders refuse channels without positions, which cameras write: those get the usual positions for their number.
  if read -r channels < <(decoded_caps "$file" audio/x-raw |
    sed -nE '/channel-mask=[(]bitmask[)]0x0+(,|$)/s/.*channels=[(]int[)]([0-9]+).*/\1/p') && [ "$channels" -gt 1 ]; then
    need_elements capssetter
    positions=(! capssetter "caps=audio/x-raw,channel-mask=(bitmask)${masks[channels]:-$(((1 << channels) - 1))}" ! audioconvert)
  fi
  sound=(in. ! queue ! audioconvert "${positions[@]}" ! audioresample ! "$@" ! queue ! out.)
}

# open_input IN: sets the array `source` to a source element for a video file or a camera, and `upright` as turn_upright
# does.
open_input() {
  if [ -c "$1" ]; then
    source=(v4l2src "device=$1")
    upright=()
  else
    need_files "$1"
    need_video "$1"
    source=(filesrc "location=$(quote "$1")")
    turn_upright "$1"
  fi
}
