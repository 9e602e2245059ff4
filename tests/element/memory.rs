// SPDX-License-Identifier: MPL-2.0

use gstreamer as gst;
use gstreamer_check::Harness;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoFormat, VideoInfo};

use crate::util::*;

/// Addresses of the memories of a buffer.
fn addresses(buffer: &gst::BufferRef) -> Vec<usize> {
    buffer.iter_memories().map(|memory| memory.map_readable().unwrap().as_ptr() as usize).collect()
}

fn with_video_meta(harness: &mut Harness) {
    harness.add_propose_allocation_meta(gst_video::VideoMeta::meta_api(), None);
}

/// A harness that accepts `format`, and any strides with `video_meta`.
fn open(element: &gst::Element, info: &VideoInfo, format: VideoFormat, video_meta: bool) -> Harness {
    let mut harness = Harness::with_element(element, Some("sink"), Some("src"));
    if video_meta {
        with_video_meta(&mut harness);
    }
    harness.set_sink_caps(gst_video::VideoCapsBuilder::new().format(format).build());
    harness.set_src_caps(info.to_caps().unwrap());
    harness
}

/// A frame with `padding` bytes after each row and before the first.
fn padded(info: &VideoInfo, padding: usize) -> gst::Buffer {
    let format = info.format_info();
    let (mut offsets, mut strides, mut bytes) = (Vec::new(), Vec::new(), vec![0xee; padding]);
    for plane in 0..format.n_planes() as usize {
        let component = (0..3).find(|&c| format.plane()[c] as usize == plane).unwrap();
        let width = info.comp_width(component as u8) as usize * format.pixel_stride()[component] as usize;
        let height = info.comp_height(component as u8) as usize;
        offsets.push(bytes.len());
        strides.push((width + padding) as i32);
        for y in 0..height {
            bytes.extend((0..width).map(|x| (16 + (plane * 50 + x * 3 + y * 5) % 200) as u8));
            bytes.extend(std::iter::repeat_n(0xee, padding));
        }
    }
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let flags = gst_video::VideoFrameFlags::empty();
    gst_video::VideoMeta::add_full(
        buffer.get_mut().unwrap(),
        flags,
        info.format(),
        info.width(),
        info.height(),
        &offsets,
        &strides,
    )
    .unwrap();
    stamp(&mut buffer, 0);
    buffer
}

/// Formats to which the element appends an alpha plane, and the results. GStreamer 1.22 does not list AV12 as a
/// format with alpha, so the element does not offer it there.
fn appended() -> impl Iterator<Item = (VideoFormat, VideoFormat)> {
    let all = [
        (VideoFormat::I420, VideoFormat::A420),
        (VideoFormat::Nv12, VideoFormat::Av12),
        (VideoFormat::Yv12, VideoFormat::A420),
    ];
    all.into_iter().filter(|(_, to)| gstreamer_video::VideoFormatInfo::from_format(*to).has_alpha())
}

#[test]
fn colours_of_full_hd_are_the_same_memory() {
    let files = Files::new();
    let mask = files.mask("mask.png", (1920, 1080), ramp);
    for (format, expected) in appended() {
        let element = with_mask(&mask);
        let info = info(format, 1920, 1080);
        let mut harness = open(&element, &info, expected, true);
        for number in 0..3 {
            let buffer = frame(&info, number);
            let before = addresses(&buffer);
            harness.push(buffer).unwrap();
            let out = harness.pull().unwrap();
            let after = addresses(&out);
            assert_eq!(after.len(), before.len() + 1, "{format:?}");
            assert_eq!(after[..before.len()], before, "{format:?}: the colours were copied");
            let out_info = src_info(&harness);
            assert_eq!(out_info.format(), expected);
            if number == 0 {
                let wanted: Vec<u8> = (0..1920 * 1080).map(|i| ramp(i % 1920, i / 1920)).collect();
                assert!(plane(&out, &out_info, 3, 1) == wanted, "{format:?}: alpha differs");
            }
        }
    }
}

#[test]
fn odd_sizes_and_padded_strides() {
    let files = Files::new();
    for (width, height) in [(1, 1), (7, 5), (33, 17), (64, 47), (63, 48)] {
        let data: Vec<u8> = (0..width * height).map(|i| ramp(i % width, i / width)).collect();
        let (color, depth) = (png::ColorType::Grayscale, png::BitDepth::Eight);
        let mask = files.png("mask.png", (width, height), color, depth, &data);
        for (format, expected) in appended() {
            for video_meta in [true, false] {
                let element = with_mask(&mask);
                let info = info(format, width as u32, height as u32);
                let mut harness = open(&element, &info, expected, video_meta);
                for padding in [0, 1, 13, 64] {
                    let buffer = padded(&info, padding);
                    let colors: Vec<Vec<u8>> = (0..3).map(|c| component(&buffer, &info, c)).collect();
                    start_new_stream(&mut harness);
                    harness.push(buffer).unwrap();
                    let out = harness.pull().unwrap();
                    let out_info = src_info(&harness);
                    let what = format!("{format:?} {width}x{height} + {padding}, meta {video_meta}");
                    if !video_meta {
                        assert!(is_packed(&out, &out_info), "{what}: padded without video meta");
                    }
                    assert_eq!(component(&out, &out_info, 3), data, "{what}: alpha");
                    for (c, wanted) in colors.iter().enumerate() {
                        assert_eq!(&component(&out, &out_info, c as u8), wanted, "{what}: component {c}");
                    }
                }
            }
        }
    }
}

fn is_packed(buffer: &gst::BufferRef, info: &VideoInfo) -> bool {
    buffer.size() == info.size()
        && buffer.meta::<gst_video::VideoMeta>().is_none_or(|meta| {
            let planes = info.format_info().n_planes() as usize;
            meta.offset()[..planes] == info.offset()[..planes]
                && meta.stride()[..planes] == info.stride()[..planes]
        })
}

/// The samples of one component.
fn component(buffer: &gst::BufferRef, info: &VideoInfo, component: u8) -> Vec<u8> {
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
    let index = info.comp_plane(component);
    let stride = frame.plane_stride()[index as usize] as usize;
    let (offset, pixel) = (info.comp_poffset(component) as usize, info.comp_pstride(component) as usize);
    let (width, height) = (info.comp_width(component) as usize, info.comp_height(component) as usize);
    let data = frame.plane_data(index).unwrap();
    (0..height).flat_map(|y| (0..width).map(move |x| data[y * stride + x * pixel + offset])).collect()
}

#[test]
fn packed_colours_without_video_meta_are_the_same_memory_too() {
    let (_files, mask) = mask_file(ramp);
    for (format, expected) in appended().filter(|(format, _)| *format != VideoFormat::Yv12) {
        let element = with_mask(&mask);
        let info = info(format, 64, 48);
        let mut harness = open(&element, &info, expected, false);
        let buffer = frame(&info, 0);
        let before = addresses(&buffer);
        harness.push(buffer).unwrap();
        let out = harness.pull().unwrap();
        assert_eq!(addresses(&out)[..1], before, "{format:?}");
        assert!(is_packed(&out, &src_info(&harness)));
    }
}

#[test]
fn rgbx_becomes_rgba_in_place() {
    let (_files, mask) = mask_file(ramp);
    for (format, expected) in [
        (VideoFormat::Rgbx, VideoFormat::Rgba),
        (VideoFormat::Bgrx, VideoFormat::Bgra),
        (VideoFormat::Xrgb, VideoFormat::Argb),
        (VideoFormat::Xbgr, VideoFormat::Abgr),
        (VideoFormat::Rgba, VideoFormat::Rgba),
        (VideoFormat::A420, VideoFormat::A420),
    ] {
        let element = with_mask(&mask);
        let (mut harness, info) = small(&element, format);
        let mut buffer = frame(&info, 0);
        // Input alpha is multiplied with the mask; 255 keeps the mask.
        buffer.get_mut().unwrap().map_writable().unwrap().fill(255);
        let before = addresses(&buffer);
        harness.push(buffer).unwrap();
        let out = harness.pull().unwrap();
        let out_info = src_info(&harness);
        assert_eq!(out_info.format(), expected);
        assert_eq!(addresses(&out), before, "{format:?} was copied");
        let wanted: Vec<u8> = (0..64 * 48).map(|i| ramp(i % 64, i / 64)).collect();
        assert_eq!(component(&out, &out_info, 3), wanted);
    }
}

#[test]
fn shared_buffers_are_not_written() {
    let (_files, mask) = mask_file(ramp);
    for format in
        [VideoFormat::Rgbx, VideoFormat::Rgba, VideoFormat::I420, VideoFormat::A420, VideoFormat::Rgb]
    {
        for output in ["alpha", "overlay"] {
            let element = with_mask(&mask);
            element.set_property_from_str("output", output);
            let (mut harness, info) = small(&element, format);
            let buffer = frame(&info, 0);
            let kept = buffer.clone();
            let before = buffer.map_readable().unwrap().to_vec();
            harness.push(buffer).unwrap();
            let out = harness.pull().unwrap();
            assert!(
                *kept.map_readable().unwrap() == before,
                "{format:?} {output}: a shared buffer was written"
            );
            assert!(out.map_readable().unwrap().to_vec() != before);
        }
    }
}

#[test]
fn alpha_planes_are_reused() {
    let (_files, element) = masked(disc);
    let info = info(VideoFormat::I420, 640, 480);
    let mut harness = open(&element, &info, VideoFormat::A420, true);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..6 {
        harness.push(frame(&info, number)).unwrap();
        seen.insert(*addresses(&harness.pull().unwrap()).last().unwrap());
    }
    assert_eq!(seen.len(), 1, "a plane was allocated for each frame");
}

#[test]
fn upstream_pools_get_their_buffers_back() {
    let (_files, element) = masked(disc);
    let info = info(VideoFormat::I420, 640, 480);
    let pool = gst_video::VideoBufferPool::new();
    let mut config = pool.config();
    config.set_params(Some(&info.to_caps().unwrap()), info.size() as u32, 0, 0);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_ref());
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let mut harness = open(&element, &info, VideoFormat::A420, true);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..6 {
        let mut buffer = pool.acquire_buffer(None).unwrap();
        stamp(&mut buffer, number);
        seen.insert(addresses(&buffer)[0]);
        harness.push(buffer).unwrap();
        let out = harness.pull().unwrap();
        assert!(seen.contains(&addresses(&out)[0]), "the colours were copied");
    }
    assert_eq!(seen.len(), 1, "the pool allocated a buffer for each frame");
}

#[test]
fn video_meta_is_offered_to_upstream() {
    let (_files, element) = masked(disc);
    let info = info(VideoFormat::I420, 64, 48);
    let harness = harness(&element, &info.to_caps().unwrap());
    let mut query = gst::query::Allocation::new(Some(&info.to_caps().unwrap()), true);
    assert!(harness.srcpad().unwrap().peer_query(&mut query));
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
}
