// SPDX-License-Identifier: MPL-2.0

//! Number of CPU threads that libtorch uses for the calling thread.
//!
//! `at::set_num_threads` also changes a process-wide default, which belongs to the host application. OpenMP and
//! MKL both keep their number of threads per calling thread, so only those two are set here.

use once_cell::sync::OnceCell;

/// `omp_set_num_threads` of the OpenMP that libtorch uses.
type SetThreads = unsafe extern "C" fn(libc::c_int);
/// `MKL_Set_Num_Threads_Local` (the C binding), which returns the previous number.
type SetLocalThreads = unsafe extern "C" fn(libc::c_int) -> libc::c_int;

struct Runtime {
    openmp: SetThreads,
    /// Not every libtorch is built with MKL.
    mkl: Option<SetLocalThreads>,
}

/// Returns how many threads libtorch uses for work of the calling thread.
pub fn of_this_thread() -> u32 {
    u32::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Returns whether the number can be set for one thread alone.
pub fn can_set_for_one_thread() -> bool {
    runtime().is_some()
}

/// Sets how many threads libtorch uses for work of the calling thread. 0 changes nothing.
pub fn set_for_this_thread(count: u32) {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    if count == 0 {
        return;
    }
    // The query makes libtorch initialise the calling thread, which would otherwise overwrite the number later.
    if tch::get_num_threads() == count {
        return;
    }
    match runtime() {
        Some(runtime) => {
            // SAFETY: both functions take a positive number and touch nothing but settings of the calling thread.
            unsafe {
                (runtime.openmp)(count);
                if let Some(mkl) = runtime.mkl {
                    mkl(count);
                }
            }
        }
        // With another or a static OpenMP, only the process-wide setting is available.
        None => tch::set_num_threads(count),
    }
}

/// Returns the functions for the calling thread; `None` if there is only a process-wide setting.
fn runtime() -> Option<&'static Runtime> {
    static RUNTIME: OnceCell<Option<Runtime>> = OnceCell::new();
    RUNTIME.get_or_init(find_runtime).as_ref()
}

#[cfg(unix)]
fn find_runtime() -> Option<Runtime> {
    use libloading::os::unix::{Library, RTLD_LAZY};
    let loaded = |name: &str| {
        // SAFETY: RTLD_NOLOAD loads nothing, so no initialiser runs.
        unsafe { Library::open(Some(name), RTLD_LAZY | libc::RTLD_NOLOAD) }.ok()
    };
    let torch = loaded("libtorch_cpu.so")?;
    let openmp = loaded("libgomp.so.1")?;
    // SAFETY: the types are those of the OpenMP specification and of MKL's manual.
    let runtime = unsafe {
        Runtime {
            openmp: *openmp.get::<SetThreads>(b"omp_set_num_threads\0").ok()?,
            mkl: torch.get::<SetLocalThreads>(b"MKL_Set_Num_Threads_Local\0").ok().map(|f| *f),
        }
    };
    // The functions must stay valid: neither library is ever unloaded.
    std::mem::forget((torch, openmp));
    // libtorch may be linked to another OpenMP: check that the setting takes effect.
    let effective = std::thread::spawn(move || {
        let wanted = tch::get_num_threads() + 1;
        // SAFETY: as in `set_for_this_thread`.
        unsafe { (runtime.openmp)(wanted) };
        (tch::get_num_threads() == wanted).then_some(runtime)
    });
    effective.join().ok().flatten()
}

#[cfg(not(unix))]
fn find_runtime() -> Option<Runtime> {
    None
}

/// Calls `work` with `count` threads of libtorch for the calling thread.
#[cfg(test)]
pub fn with_threads<T>(count: u32, work: impl FnOnce() -> T) -> T {
    let before = of_this_thread();
    set_for_this_thread(count);
    let result = work();
    set_for_this_thread(before);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_affected() {
        let threads_of_another = || std::thread::spawn(tch::get_num_threads).join().unwrap();
        let before = threads_of_another();
        std::thread::spawn(move || {
            let own = tch::get_num_threads();
            set_for_this_thread(u32::try_from(before).unwrap() + 3);
            assert_eq!(tch::get_num_threads(), before + 3);
            set_for_this_thread(0);
            assert_eq!(tch::get_num_threads(), before + 3, "0 changes nothing");
            set_for_this_thread(u32::try_from(own).unwrap());
            assert_eq!(tch::get_num_threads(), own);
        })
        .join()
        .unwrap();
        assert_eq!(threads_of_another(), before, "the process-wide number is the application's");
    }
}
