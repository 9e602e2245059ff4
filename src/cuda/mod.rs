//! What the bindings of libtorch lack on CUDA: streams, graphs, asynchronous copies, the allocator.
//!
//! `shim.cpp` has them for us. It is compiled by the build script, where a compiler and the headers are there,
//! into a library of its own that needs libtorch's CUDA half, and travels inside the plugin. It is loaded when
//! a CUDA device is opened and not before, so that the same plugin runs where there is no such thing.

mod library;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};

use libloading::Library;
use tch::Tensor;

use crate::{Error, Result};

/// What this was compiled against, as `shim.cpp` has it.
const LIBTORCH: &str = "2.11.0";

type Raw = *mut c_void;

/// The functions of `shim.cpp`, by name.
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
    /// Its kernels and ours are registered for good: it is never unloaded.
    _library: std::mem::ManuallyDrop<Library>,
}

/// The loaded library.
#[derive(Clone, Debug)]
pub struct Shim(Arc<Functions>);

impl Shim {
    /// Loads the library, once in a process. libtorch's CUDA half must be there already.
    ///
    /// # Errors
    /// Why it cannot be had: it was not compiled in, or needs what is not there.
    pub fn load() -> Result<Self, String> {
        static LOADED: OnceLock<Result<Shim, String>> = OnceLock::new();
        LOADED.get_or_init(|| library::open().and_then(Self::resolve)).clone()
    }

    fn resolve(library: Library) -> Result<Self, String> {
        /// # Safety
        /// The symbol must be of the type asked for.
        unsafe fn find<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
            let symbol = format!("fastganseg_cuda_{name}\0");
            // SAFETY: passed on to the caller.
            let found = unsafe { library.get::<T>(symbol.as_bytes()) };
            found.map(|symbol| *symbol).map_err(|error| error.to_string())
        }
        // SAFETY: the types are those of the declarations in shim.cpp.
        unsafe {
            let version = find::<unsafe extern "C" fn() -> *const c_char>(&library, "libtorch")?;
            let version = CStr::from_ptr(version()).to_string_lossy();
            if version != LIBTORCH {
                return Err(format!("it was compiled against libtorch {version}, not {LIBTORCH}"));
            }
            Ok(Self(Arc::new(Functions {
                error: find(&library, "error")?,
                stream_new: find(&library, "stream_new")?,
                stream_free: find(&library, "stream_free")?,
                stream_enter: find(&library, "stream_enter")?,
                stream_leave: find(&library, "stream_leave")?,
                stream_wait: find(&library, "stream_wait")?,
                copy: find(&library, "copy")?,
                pool: find(&library, "pool")?,
                graph_begin: find(&library, "graph_begin")?,
                graph_end: find(&library, "graph_end")?,
                graph_replay: find(&library, "graph_replay")?,
                graph_free: find(&library, "graph_free")?,
                empty_cache: find(&library, "empty_cache")?,
                limit: find(&library, "limit")?,
                memory: find(&library, "memory")?,
                _library: std::mem::ManuallyDrop::new(library),
            })))
        }
    }

    fn check(&self, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the reason of the call that just failed on this thread, a string that ends.
        let reason = unsafe { CStr::from_ptr((self.0.error)()) }.to_string_lossy();
        Err(Error::Cuda(reason.lines().next().unwrap_or_default().to_owned()))
    }

    /// A stream of high priority on the CUDA device of that number.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn stream(&self, device: usize) -> Result<Stream> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is written to on success.
        self.check(unsafe { (self.0.stream_new)(device as c_int, &mut raw) })?;
        Ok(Stream { raw, shim: self.clone() })
    }

    /// Copies all of `from` into `to`, in the order of the current stream, which is not waited for if one of
    /// them is page-locked: its memory must not be touched until the stream was waited for.
    ///
    /// # Errors
    /// [`Error::Cuda`], as for other shapes.
    pub fn copy(&self, to: &mut Tensor, from: &Tensor) -> Result<()> {
        // SAFETY: both are tensors of the libtorch that the shim was compiled against, alive during the call.
        self.check(unsafe { (self.0.copy)(to.as_mut_ptr().cast(), from.as_ptr().cast()) })
    }

    /// Memory for the intermediate values of graphs that never run at the same time.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn pool(&self) -> Result<Pool> {
        let mut id = (0, 0);
        // SAFETY: two numbers are written.
        self.check(unsafe { (self.0.pool)(&mut id.0, &mut id.1) })?;
        Ok(Pool(id))
    }

    /// Records all that `work` hands to the current stream, which must be one of our own. None of it is run.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Cuda`] for what cannot be recorded, such as waiting for a value.
    pub fn capture(&self, pool: &Pool, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is written to on success.
        self.check(unsafe { (self.0.graph_begin)(pool.0.0, pool.0.1, &mut raw) })?;
        let graph = Graph { raw, shim: self.clone() };
        let done = work();
        // SAFETY: the graph was begun above. It is ended whatever became of the work, or the stream would
        // record for ever.
        let ended = self.check(unsafe { (self.0.graph_end)(graph.raw) });
        done?;
        ended?;
        Ok(graph)
    }

    /// Gives memory that no tensor uses back to the driver.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn empty_cache(&self) -> Result<()> {
        // SAFETY: no arguments.
        self.check(unsafe { (self.0.empty_cache)() })
    }

    /// Lets libtorch take so many bytes more than it has now from the driver, or all there are.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn limit(&self, device: usize, more: Option<u64>) -> Result<()> {
        // SAFETY: numbers alone.
        self.check(unsafe { (self.0.limit)(device as c_int, more.unwrap_or(0)) })
    }

    /// What libtorch's allocator has on a device.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn memory(&self, device: usize) -> Result<Memory> {
        let mut memory = Memory::default();
        let Memory { used, reserved, peak } = &mut memory;
        // SAFETY: three numbers are written.
        self.check(unsafe { (self.0.memory)(device as c_int, used, reserved, peak) })?;
        Ok(memory)
    }
}

/// Bytes of a device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In tensors.
    pub used: u64,
    /// Taken from the driver, used or not.
    pub reserved: u64,
    /// The most that was taken at a time.
    pub peak: u64,
}

/// Names memory that graphs share.
#[derive(Clone, Debug)]
pub struct Pool((u64, u64));

/// A stream of a device.
#[derive(Debug)]
pub struct Stream {
    raw: Raw,
    shim: Shim,
}

// SAFETY: a stream is but a number and belongs to no thread.
unsafe impl Send for Stream {}
// SAFETY: nothing of it changes.
unsafe impl Sync for Stream {}

impl Stream {
    /// Makes it the one that this thread hands its work to, until the guard is dropped on the same thread.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn enter(&self) -> Result<Current> {
        let mut before = std::ptr::null_mut();
        // SAFETY: `before` is written to on success.
        self.shim.check(unsafe { (self.shim.0.stream_enter)(self.raw, &mut before) })?;
        Ok(Current { before, shim: self.shim.clone() })
    }

    /// Waits until all is done that was handed to it.
    ///
    /// # Errors
    /// [`Error::Cuda`], also of work that was handed over earlier.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: our own stream.
        self.shim.check(unsafe { (self.shim.0.stream_wait)(self.raw) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { (self.shim.0.stream_free)(self.raw) }
    }
}

/// A stream of our own is the current one as long as this lives.
#[derive(Debug)]
pub struct Current {
    /// Not `Send`: which stream is current is a matter of each thread.
    before: Raw,
    shim: Shim,
}

impl Drop for Current {
    fn drop(&mut self) {
        // SAFETY: given to us on entering, given back once.
        unsafe { (self.shim.0.stream_leave)(self.before) };
    }
}

/// Recorded work.
#[derive(Debug)]
pub struct Graph {
    raw: Raw,
    shim: Shim,
}

// SAFETY: graphs belong to no thread.
unsafe impl Send for Graph {}

impl Graph {
    /// Hands all of it to the current stream at once.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn replay(&self) -> Result<()> {
        // SAFETY: our own graph, whose capture has ended.
        self.shim.check(unsafe { (self.shim.0.graph_replay)(self.raw) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { (self.shim.0.graph_free)(self.raw) }
    }
}
