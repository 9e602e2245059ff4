// SPDX-License-Identifier: MPL-2.0

//! CUDA functions that libtorch's Rust bindings lack: streams, graphs, asynchronous copies, allocator.
//!
//! `shim.cpp` implements them. If a compiler and the headers are available, the build script compiles it to a
//! library that is embedded in the plugin. The library needs libtorch's CUDA libraries, so it is loaded only when
//! a CUDA device is opened, and the same plugin runs on systems without CUDA.

mod library;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};

pub use self::library::{find, message, open_embedded};
use libloading::Library;
use tch::Tensor;

use crate::{Error, Result};

/// Version of libtorch that this crate is compiled against.
const LIBTORCH: &str = "2.11.0";

type Raw = *mut c_void;

/// Functions of `shim.cpp`.
#[derive(Debug)]
struct Functions {
    error: unsafe extern "C" fn() -> *const c_char,
    stream_new: unsafe extern "C" fn(c_int, *mut Raw) -> c_int,
    stream_free: unsafe extern "C" fn(Raw),
    stream_enter: unsafe extern "C" fn(Raw, *mut Raw) -> c_int,
    stream_leave: unsafe extern "C" fn(Raw) -> c_int,
    stream_wait: unsafe extern "C" fn(Raw) -> c_int,
    copy: unsafe extern "C" fn(*const c_void, *const c_void) -> c_int,
    pool: unsafe extern "C" fn(*mut u64, *mut u64) -> c_int,
    graph_begin: unsafe extern "C" fn(u64, u64, *mut Raw) -> c_int,
    graph_end: unsafe extern "C" fn(Raw) -> c_int,
    graph_replay: unsafe extern "C" fn(Raw) -> c_int,
    graph_free: unsafe extern "C" fn(Raw),
    empty_cache: unsafe extern "C" fn() -> c_int,
    limit: unsafe extern "C" fn(c_int, u64) -> c_int,
    memory: unsafe extern "C" fn(c_int, *mut u64, *mut u64, *mut u64) -> c_int,
    /// Never unloaded, because kernel registrations are permanent.
    _library: std::mem::ManuallyDrop<Library>,
}

/// The loaded shim library.
#[derive(Clone, Debug)]
pub struct Shim(Arc<Functions>);

impl Shim {
    /// Loads the library once per process. libtorch's CUDA libraries must be loaded already.
    ///
    /// # Errors
    /// The reason if the library is not part of this build or one of its dependencies is missing.
    pub fn load() -> Result<Self, String> {
        static LOADED: OnceLock<Result<Shim, String>> = OnceLock::new();
        LOADED.get_or_init(|| library::open().and_then(Self::resolve)).clone()
    }

    fn resolve(library: Library) -> Result<Self, String> {
        // SAFETY: the types are those of the declarations in shim.cpp.
        unsafe {
            let name = |name: &str| format!("fastganseg_cuda_{name}");
            let version = find::<unsafe extern "C" fn() -> *const c_char>(&library, &name("libtorch"))?;
            let version = CStr::from_ptr(version()).to_string_lossy();
            if version != LIBTORCH {
                return Err(format!(
                    "the CUDA shim was compiled against libtorch {version}, not {LIBTORCH}: rebuild the plugin"
                ));
            }
            Ok(Self(Arc::new(Functions {
                error: find(&library, &name("error"))?,
                stream_new: find(&library, &name("stream_new"))?,
                stream_free: find(&library, &name("stream_free"))?,
                stream_enter: find(&library, &name("stream_enter"))?,
                stream_leave: find(&library, &name("stream_leave"))?,
                stream_wait: find(&library, &name("stream_wait"))?,
                copy: find(&library, &name("copy"))?,
                pool: find(&library, &name("pool"))?,
                graph_begin: find(&library, &name("graph_begin"))?,
                graph_end: find(&library, &name("graph_end"))?,
                graph_replay: find(&library, &name("graph_replay"))?,
                graph_free: find(&library, &name("graph_free"))?,
                empty_cache: find(&library, &name("empty_cache"))?,
                limit: find(&library, &name("limit"))?,
                memory: find(&library, &name("memory"))?,
                _library: std::mem::ManuallyDrop::new(library),
            })))
        }
    }

    fn check(&self, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the function is that of shim.cpp.
        Err(Error::Cuda(unsafe { message(self.0.error) }))
    }

    /// Returns a high-priority stream of CUDA device number `device`.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn stream(&self, device: usize) -> Result<Stream> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is valid for writes.
        self.check(unsafe { (self.0.stream_new)(device as c_int, &mut raw) })?;
        Ok(Stream { raw, shim: self.clone() })
    }

    /// Copies `from` to `to` on the current stream.
    ///
    /// If one of them is page-locked, the copy is asynchronous: that memory must not be accessed before
    /// [`Stream::wait`].
    ///
    /// # Errors
    /// [`Error::Cuda`], for example if the shapes differ.
    pub fn copy(&self, to: &mut Tensor, from: &Tensor) -> Result<()> {
        // SAFETY: both are live tensors of the libtorch that the shim was compiled against.
        self.check(unsafe { (self.0.copy)(to.as_mut_ptr().cast(), from.as_ptr().cast()) })
    }

    /// Returns a memory pool for the intermediate values of graphs that never run at the same time.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn pool(&self) -> Result<Pool> {
        let mut id = (0, 0);
        // SAFETY: both pointers are valid for writes.
        self.check(unsafe { (self.0.pool)(&mut id.0, &mut id.1) })?;
        Ok(Pool(id))
    }

    /// Captures the work that `work` submits to the current stream, which must be a [`Stream`]. Does not execute
    /// it.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Cuda`] for operations that cannot be captured, such as waiting for a value.
    pub fn capture(&self, pool: &Pool, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is valid for writes.
        self.check(unsafe { (self.0.graph_begin)(pool.0.0, pool.0.1, &mut raw) })?;
        let graph = Graph { raw, shim: self.clone() };
        let done = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: the capture was begun above. It must end even if `work` fails, or the stream keeps capturing.
        let ended = self.check(unsafe { (self.0.graph_end)(graph.raw) });
        if let Err(error) = ended {
            // libtorch's allocator still refers to it.
            std::mem::forget(graph);
            done.unwrap_or_else(|panic| resume_unwind(panic))?;
            return Err(error);
        }
        done.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(graph)
    }

    /// Returns memory that no tensor uses to the driver.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn empty_cache(&self) -> Result<()> {
        // SAFETY: the function has no preconditions.
        self.check(unsafe { (self.0.empty_cache)() })
    }

    /// Limits the memory that libtorch may take from the driver to `more` bytes in addition to the present amount;
    /// `None` removes the limit.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn limit(&self, device: usize, more: Option<u64>) -> Result<()> {
        // SAFETY: all arguments are numbers.
        self.check(unsafe { (self.0.limit)(device as c_int, more.unwrap_or(0)) })
    }

    /// Returns the memory statistics of libtorch's allocator on a device.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn memory(&self, device: usize) -> Result<Memory> {
        let mut memory = Memory::default();
        let Memory { used, reserved, peak } = &mut memory;
        // SAFETY: all three pointers are valid for writes.
        self.check(unsafe { (self.0.memory)(device as c_int, used, reserved, peak) })?;
        Ok(memory)
    }
}

/// Memory statistics of a device in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Used by tensors.
    pub used: u64,
    /// Taken from the driver, used or not.
    pub reserved: u64,
    /// Maximum of `reserved` so far.
    pub peak: u64,
}

/// Id of a memory pool that graphs share.
#[derive(Clone, Debug)]
pub struct Pool((u64, u64));

/// A CUDA stream.
#[derive(Debug)]
pub struct Stream {
    raw: Raw,
    shim: Shim,
}

// SAFETY: a stream is an id and is not bound to a thread.
unsafe impl Send for Stream {}
// SAFETY: a stream is immutable.
unsafe impl Sync for Stream {}

impl Stream {
    /// Makes this the current stream of the calling thread until the guard is dropped on the same thread.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn enter(&self) -> Result<StreamGuard> {
        let mut before = std::ptr::null_mut();
        // SAFETY: `before` is valid for writes.
        self.shim.check(unsafe { (self.shim.0.stream_enter)(self.raw, &mut before) })?;
        Ok(StreamGuard { before, shim: self.shim.clone() })
    }

    /// Waits for all work submitted to the stream.
    ///
    /// # Errors
    /// [`Error::Cuda`], also for errors of work that was submitted earlier.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: `raw` is a valid stream.
        self.shim.check(unsafe { (self.shim.0.stream_wait)(self.raw) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: `raw` is owned and freed once.
        unsafe { (self.shim.0.stream_free)(self.raw) }
    }
}

/// Guard that restores the previous current stream when dropped.
#[derive(Debug)]
pub struct StreamGuard {
    /// The raw pointer makes the guard `!Send`, because the current stream is a property of the thread.
    before: Raw,
    shim: Shim,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        // SAFETY: `before` comes from `stream_enter` and is passed to `stream_leave` once.
        unsafe { (self.shim.0.stream_leave)(self.before) };
    }
}

/// A captured CUDA graph.
#[derive(Debug)]
pub struct Graph {
    raw: Raw,
    shim: Shim,
}

// SAFETY: a graph is not bound to a thread.
unsafe impl Send for Graph {}

impl Graph {
    /// Submits the graph to the current stream.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn replay(&self) -> Result<()> {
        // SAFETY: `raw` is a valid graph whose capture has ended.
        self.shim.check(unsafe { (self.shim.0.graph_replay)(self.raw) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: `raw` is owned and freed once.
        unsafe { (self.shim.0.graph_free)(self.raw) }
    }
}
