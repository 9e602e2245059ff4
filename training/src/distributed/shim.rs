// SPDX-License-Identifier: MPL-2.0

//! Safe wrappers of the functions in `shim.cpp` and `nccl.cpp`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gstfastganseg::torch::cuda::{find, message, open_embedded};
use libloading::Library;
use tch::Tensor;

/// Version of libtorch that this crate is compiled against.
pub const LIBTORCH: &str = "2.11.0";

/// The library of `shim.cpp`; empty if the build script could not compile it.
const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim.so"));
/// The library of `nccl.cpp`; empty without NCCL's headers.
const NCCL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nccl.so"));

/// Result with libtorch's message.
type Result<T> = std::result::Result<T, String>;
type Raw = *mut c_void;

/// Functions of `shim.cpp`.
#[derive(Debug)]
struct Functions {
    error: unsafe extern "C" fn() -> *const c_char,
    store_new: unsafe extern "C" fn(*const c_char, c_int, c_int, i64, *const c_char, *mut Raw) -> c_int,
    store_free: unsafe extern "C" fn(Raw),
    store_set: unsafe extern "C" fn(Raw, *const c_char, *const u8, usize) -> c_int,
    store_set_first: unsafe extern "C" fn(Raw, *const c_char, *const u8, usize) -> c_int,
    store_get: unsafe extern "C" fn(Raw, *const c_char, *mut *const u8, *mut usize) -> c_int,
    store_add: unsafe extern "C" fn(Raw, *const c_char, i64, *mut i64) -> c_int,
    group_new: unsafe extern "C" fn(Raw, c_int, c_int, *const c_char, i64, *mut Raw) -> c_int,
    group_free: unsafe extern "C" fn(Raw),
    group_gloo_on_cuda: unsafe extern "C" fn(Raw) -> c_int,
    all_reduce: unsafe extern "C" fn(Raw, *mut c_void) -> c_int,
    broadcast: unsafe extern "C" fn(Raw, *const *mut c_void, usize) -> c_int,
    reducer_new: unsafe extern "C" fn(Raw, *const *mut c_void, usize, *mut Raw) -> c_int,
    reducer_free: unsafe extern "C" fn(Raw),
    reducer_prepare: unsafe extern "C" fn(Raw, *const c_void) -> c_int,
    /// Never unloaded, because threads of libtorch may run its code.
    _library: ManuallyDrop<Library>,
}

#[derive(Clone, Debug)]
pub struct Shim(Arc<Functions>);

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| format!("{text:?} contains a null character"))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Shim {
    /// Loads the library once per process.
    pub fn load() -> Result<Self> {
        static LOADED: OnceLock<Result<Shim>> = OnceLock::new();
        LOADED.get_or_init(Self::open).clone()
    }

    fn open() -> Result<Self> {
        if SHIM.is_empty() {
            return Err(
                "this build is for a single process, because a C++ compiler or libtorch's headers were missing: \
                        install a C++ compiler, run scripts/setup.sh and build again"
                    .into(),
            );
        }
        Self::resolve(open_embedded(SHIM)?)
    }

    fn resolve(library: Library) -> Result<Self> {
        // SAFETY: the types are those of the declarations in shim.cpp.
        unsafe {
            let name = |name: &str| format!("fastganseg_distributed_{name}");
            let version = find::<unsafe extern "C" fn() -> *const c_char>(&library, &name("libtorch"))?;
            let version = CStr::from_ptr(version()).to_string_lossy();
            if version != LIBTORCH {
                return Err(format!(
                    "the functions for several processes were compiled against libtorch {version}, not {LIBTORCH}: \
                     build again"
                ));
            }
            Ok(Self(Arc::new(Functions {
                error: find(&library, &name("error"))?,
                store_new: find(&library, &name("store_new"))?,
                store_free: find(&library, &name("store_free"))?,
                store_set: find(&library, &name("store_set"))?,
                store_set_first: find(&library, &name("store_set_first"))?,
                store_get: find(&library, &name("store_get"))?,
                store_add: find(&library, &name("store_add"))?,
                group_new: find(&library, &name("group_new"))?,
                group_free: find(&library, &name("group_free"))?,
                group_gloo_on_cuda: find(&library, &name("group_gloo_on_cuda"))?,
                all_reduce: find(&library, &name("all_reduce"))?,
                broadcast: find(&library, &name("broadcast"))?,
                reducer_new: find(&library, &name("reducer_new"))?,
                reducer_free: find(&library, &name("reducer_free"))?,
                reducer_prepare: find(&library, &name("reducer_prepare"))?,
                _library: ManuallyDrop::new(library),
            })))
        }
    }

    fn check(&self, status: c_int) -> Result<()> {
        // SAFETY: the function is that of shim.cpp.
        if status == 0 { Ok(()) } else { Err(unsafe { message(self.0.error) }) }
    }
}

/// An object of `shim.cpp`.
#[derive(Debug)]
struct Handle {
    raw: Raw,
    free: unsafe extern "C" fn(Raw),
    shim: Shim,
}

impl Handle {
    /// Calls `create`, which writes the object.
    fn new(
        shim: &Shim,
        free: unsafe extern "C" fn(Raw),
        create: impl FnOnce(&mut Raw) -> c_int,
    ) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        shim.check(create(&mut raw))?;
        Ok(Self { raw, free, shim: shim.clone() })
    }

    /// Calls a function with the object.
    fn call(&self, function: impl FnOnce(&Functions, Raw) -> c_int) -> Result<()> {
        self.shim.check(function(&self.shim.0, self.raw))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `raw` is owned and freed once.
        unsafe { (self.free)(self.raw) }
    }
}

/// A client of the key-value store that all ranks share, and its server if it has a socket.
#[derive(Debug)]
pub struct Store(Handle);

// SAFETY: c10d's stores may be used from any thread.
unsafe impl Send for Store {}

impl Store {
    /// Connects to the store at `host`:`port`, waiting up to `timeout` for it. `socket` listens at that address if
    /// this process serves the store. Keys of clients with another `prefix` are invisible.
    pub fn connect(
        shim: &Shim,
        (host, port): (&str, u16),
        socket: Option<TcpListener>,
        timeout: Duration,
        prefix: &str,
    ) -> Result<Self> {
        let (host, prefix) = (c_string(host)?, c_string(prefix)?);
        let socket = socket.map_or(-1, IntoRawFd::into_raw_fd);
        let (port, timeout) = (port.into(), milliseconds(timeout));
        // SAFETY: the strings are null-terminated, the socket is handed over, and `raw` is valid for writes.
        let create = |raw: &mut Raw| unsafe {
            (shim.0.store_new)(host.as_ptr(), port, socket, timeout, prefix.as_ptr(), raw)
        };
        Handle::new(shim, shim.0.store_free, create).map(Self)
    }

    /// Sets a value.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: the store is valid; key and value are valid for reads.
        self.0.call(|f, store| unsafe { (f.store_set)(store, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Sets a value unless the key has one.
    pub fn set_first(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: as in `set`.
        self.0
            .call(|f, store| unsafe { (f.store_set_first)(store, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Returns the value of a key that has one, without waiting.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let key = c_string(key)?;
        let (mut data, mut length) = (std::ptr::null(), 0);
        // SAFETY: the store is valid; the pointers are valid for writes.
        self.0.call(|f, store| unsafe { (f.store_get)(store, key.as_ptr(), &mut data, &mut length) })?;
        if data.is_null() {
            return Ok(None);
        }
        // SAFETY: the value stays valid until the next call on this thread.
        Ok(Some(unsafe { std::slice::from_raw_parts(data, length) }.to_vec()))
    }

    /// Adds to a counter, which begins at 0, and returns the sum.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let key = c_string(key)?;
        let mut sum = 0;
        // SAFETY: the store is valid; `sum` is valid for writes.
        self.0.call(|f, store| unsafe { (f.store_add)(store, key.as_ptr(), amount, &mut sum) })?;
        Ok(sum)
    }
}

/// Connections between all ranks. All ranks must call the same methods in the same order.
#[derive(Debug)]
pub struct Group(Handle);

impl Group {
    /// Connects this process as `rank` of `ranks` over gloo. `address` is the local address to use; empty = the
    /// interface in GLOO_SOCKET_IFNAME, else that of the machine's name. Operations fail after `timeout`.
    pub fn connect(
        store: &Store,
        rank: usize,
        ranks: usize,
        address: &str,
        timeout: Duration,
    ) -> Result<Self> {
        let address = c_string(address)?;
        let Handle { raw: store, shim, .. } = &store.0;
        let (rank, ranks, timeout) = (rank as c_int, ranks as c_int, milliseconds(timeout));
        // SAFETY: the store is valid, the string null-terminated, and `raw` valid for writes.
        let create = |raw: &mut Raw| unsafe {
            (shim.0.group_new)(*store, rank, ranks, address.as_ptr(), timeout, raw)
        };
        Handle::new(shim, shim.0.group_free, create).map(Self)
    }

    /// Uses NCCL for CUDA tensors. libtorch's CUDA libraries must be loaded.
    pub fn use_nccl(&self, store: &Store, timeout: Duration) -> Result<()> {
        if NCCL.is_empty() {
            let reason = option_env!("FASTGANSEG_NO_NCCL").unwrap_or("its headers were missing");
            return Err(format!(
                "this build has no NCCL ({reason}): run CUDA=1 scripts/setup.sh and build again"
            ));
        }
        let library = ManuallyDrop::new(open_embedded(NCCL)?);
        // SAFETY: the types are those of the declarations in nccl.cpp; store and group are valid.
        unsafe {
            let attach: unsafe extern "C" fn(Raw, Raw, i64) -> c_int =
                find(&library, "fastganseg_nccl_attach")?;
            let error = find(&library, "fastganseg_nccl_error")?;
            match attach(store.0.raw, self.0.raw, milliseconds(timeout)) {
                0 => Ok(()),
                _ => Err(message(error)),
            }
        }
    }

    /// Uses gloo for CUDA tensors.
    pub fn use_gloo_on_cuda(&self) -> Result<()> {
        // SAFETY: the group is valid.
        self.0.call(|f, group| unsafe { (f.group_gloo_on_cuda)(group) })
    }

    /// Replaces the elements of a tensor by their sums over all ranks.
    pub fn all_reduce(&self, tensor: &mut Tensor) -> Result<()> {
        // SAFETY: group and tensor are valid.
        self.0.call(|f, group| unsafe { (f.all_reduce)(group, tensor.as_mut_ptr().cast()) })
    }

    /// Replaces tensors by those of rank 0.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        let tensors = pointers(tensors);
        // SAFETY: group and tensors are valid.
        self.0.call(|f, group| unsafe { (f.broadcast)(group, tensors.as_ptr(), tensors.len()) })
    }

    /// Creates a reducer of `parameters`, which require gradients, in the order in which backward passes complete
    /// their gradients.
    pub fn reducer(&self, parameters: &[Tensor]) -> Result<Reducer> {
        let parameters = pointers(parameters);
        let shim = &self.0.shim;
        // SAFETY: group and tensors are valid, and `raw` is valid for writes.
        let create = |raw: &mut Raw| unsafe {
            (shim.0.reducer_new)(self.0.raw, parameters.as_ptr(), parameters.len(), raw)
        };
        Handle::new(shim, shim.0.reducer_free, create).map(Reducer)
    }
}

fn pointers(tensors: &[Tensor]) -> Vec<*mut c_void> {
    tensors.iter().map(|tensor| tensor.as_ptr().cast_mut().cast()).collect()
}

/// Averages the gradients of a network over all ranks during its backward pass.
#[derive(Debug)]
pub struct Reducer(Handle);

impl Reducer {
    /// Makes the next backward pass, which must begin at `loss`, leave the mean gradients over all ranks. That pass
    /// fails if another rank ends.
    pub fn prepare(&self, loss: &Tensor) -> Result<()> {
        // SAFETY: reducer and tensor are valid.
        self.0.call(|f, reducer| unsafe { (f.reducer_prepare)(reducer, loss.as_ptr().cast()) })
    }
}
