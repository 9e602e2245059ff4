// SPDX-License-Identifier: MPL-2.0

//! Answers to ALLOCATION queries: buffer pools and metas.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;

/// Proposes `GstVideoMeta` to upstream, and a number of buffers: those that downstream needs, because output buffers may
/// share the memory of input buffers, one that is filled, and one if a buffer `waits` for the next.
pub fn propose(query: &mut gst::query::Allocation, downstream: Option<&gst::query::Allocation>, waits: bool) {
    if query.find_allocation_meta::<gst_video::VideoMeta>().is_none() {
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
    }
    let caps = query.get_owned().0;
    if let Some(Ok(info)) = caps.map(|caps| gst_video::VideoInfo::from_caps(&caps)) {
        let size = u32::try_from(info.size()).unwrap_or(u32::MAX);
        let pool = downstream.and_then(|query| query.allocation_pools().next());
        let needed = pool.map_or(0, |(_, _, min, _)| min);
        let min = needed.saturating_add(1 + u32::from(waits));
        query.add_allocation_pool(None::<&gst::BufferPool>, size, min, 0);
    }
}

/// Configures the pool of the output: the pool that downstream offers, otherwise a new video buffer pool. Returns
/// whether downstream supports `GstVideoMeta`.
///
/// # Errors
/// The caps are invalid, or the new pool rejects its configuration.
pub fn decide(query: &mut gst::query::Allocation) -> Result<bool, glib::BoolError> {
    let video_meta = query.find_allocation_meta::<gst_video::VideoMeta>().is_some();
    let Some(caps) = query.get_owned().0 else { return Ok(video_meta) };
    let info = gst_video::VideoInfo::from_caps(&caps)?;

    let offered = query.allocation_pools().next();
    let replaces = offered.is_some();
    let (pool, size, min, max) = offered.unwrap_or((None, 0, 0, 0));
    let size = size.max(info.size() as u32);
    let configure = |pool: &gst::BufferPool, max: u32| {
        let mut config = pool.config();
        config.set_params(Some(&caps), size, min, max);
        if video_meta {
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_ref());
        }
        pool.set_config(config)
    };
    let (pool, max) = match pool.filter(|pool| configure(pool, max).is_ok()) {
        Some(pool) => (pool, max),
        None => {
            let pool = gst_video::VideoBufferPool::new().upcast();
            configure(&pool, 0)?;
            (pool, 0)
        }
    };
    if replaces {
        query.set_nth_allocation_pool(0, Some(&pool), size, min, max);
    } else {
        query.add_allocation_pool(Some(&pool), size, min, max);
    }
    Ok(video_meta)
}
