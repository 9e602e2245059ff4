#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Writes the cut-out object with an alpha channel, for a compositing or editing program.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/export-alpha.sh IN.mp4 MASK.png OUT

  IN    any video GStreamer decodes
  MASK  PNG of the object in the first frame as players show it
  OUT   output file; the extension selects the format, always with alpha:
          x.mov        ProRes 4444 (10 bits), for editing programs
          x.mkv        FFV1, lossless, with the bits (8 or 10) and colours of IN
          x.webm       VP9 (8 bits), for browsers; needs the program ffmpeg
          x-%05d.png   one PNG per frame (any printf pattern; 8 bits)
        MOV and MKV get IN's sound as AAC, WebM as Opus. PNG has no sound
        Interlaced video becomes progressive
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -eq 3 ] || { usage >&2; exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_files "$1" "$2"
check_output "$3" "$1" "$2"
partial=$(partial_of "$3")
case ${3,,} in
  *.mov)
    need_elements avenc_prores_ks qtmux
    encoder=(videoconvert ! "video/x-raw,format=A444_10LE" ! avenc_prores_ks profile=4444)
    muxer=(qtmux name=out ! filesink "location=$(quote "$partial")")
    ;;
  *.mkv)
    need_elements avenc_ffv1 matroskamux
    encoder=(avenc_ffv1)
    muxer=(matroskamux name=out ! filesink "location=$(quote "$partial")")
    ;;
  *.webm)
    command -v ffmpeg >/dev/null ||
      fail "$3: GStreamer cannot write WebM with alpha: install ffmpeg (Debian, Ubuntu: apt install ffmpeg), or use .mov or .mkv"
    ffmpeg -hide_banner -encoders 2>/dev/null | grep ' libvpx-vp9 ' >/dev/null ||
      fail "$3: ffmpeg has no libvpx-vp9 and cannot write VP9: install another ffmpeg, or use .mov or .mkv"
    need_elements avenc_ffv1 matroskamux fdsink
    # Lossless video to ffmpeg through descriptor 3; messages go to stderr.
    encoder=(videoconvert ! "video/x-raw,format=A420" ! avenc_ffv1)
    muxer=(matroskamux name=out streamable=true ! fdsink fd=3)
    ;;
  *%*d*.png)
    check_pattern "$3" "$1" "$2"
    need_elements pngenc multifilesink
    encoder=(videoconvert ! "video/x-raw,format=RGBA" ! pngenc ! multifilesink "location=$(quote "$3")")
    muxer=()
    ;;
  *.png) fail "$3 names a single file: use a pattern such as ${3%.*}-%05d.png" ;;
  *) fail "$3: the name must end in .mov, .mkv, .webm or .png" ;;
esac
need_elements fastganseg
need_video "$1"
turn_upright "$1"
deinterlace "$1"
sound=()
case ${3,,} in
  *.png) ;;
  *.webm) encode_sound "$1" opusenc ! opusparse ;;
  *) encode_sound "$1" ;;
esac

pipeline=(gst-launch-1.0 filesrc location="$(quote "$1")" ! decodebin name=in
  in. "${upright[@]}" ! fastganseg ref-mask="$(quote "$2")" ! progressreport update-freq=1 ! "${encoder[@]}")
[ ${#muxer[@]} -eq 0 ] || pipeline+=(! queue ! out. "${sound[@]}" "${muxer[@]}")
case ${3,,} in
  *.webm)
    # No alt-ref frames: libvpx drops their alpha.
    to_webm() {
      "${pipeline[@]}" 3>&1 >&2 | ffmpeg -v error -nostdin -y -f matroska -i pipe:0 -c:a copy \
        -c:v libvpx-vp9 -pix_fmt yuva420p -auto-alt-ref 0 -crf 18 -b:v 0 -row-mt 1 -f webm "file:$partial" &
      wait %%
    }
    write_to "$3" to_webm
    ;;
  *.png) run "${pipeline[@]}" ;;
  *) write_to "$3" run "${pipeline[@]}" ;;
esac
