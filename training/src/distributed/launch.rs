// SPDX-License-Identifier: MPL-2.0

//! Starts all ranks on this machine, for `--ranks`.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::place::{Place, SOCKET};
use crate::{Error, Result};

/// Time for the other ranks to end by themselves after one has failed.
const GRACE: Duration = Duration::from_secs(30);
/// Interval of checks.
const PERIOD: Duration = Duration::from_millis(50);
/// Process id of the launcher, with which the ranks end.
const LAUNCHED: &str = "FASTGANSEG_LAUNCHED";

/// Runs this program once for each of `ranks` ranks on this machine, with the same arguments, and waits for all of
/// them. Returns false if this process is to do the work itself: with one rank, or if it is one of the ranks.
/// Signals are passed on.
///
/// # Errors
/// [`Error::Ranks`] if a process cannot be started, or if one fails; the message names its rank.
pub fn launch(ranks: usize) -> Result<bool> {
    if let Some(place) = Place::from_environment()? {
        if place.ranks != ranks {
            return Err(Error::Ranks(format!(
                "--ranks {ranks} differs from the {} ranks of the launcher; --ranks starts processes itself, so leave \
                 it out under torchrun or srun",
                place.ranks
            )));
        }
        end_with_launcher();
        return Ok(false);
    }
    if ranks <= 1 {
        return Ok(false);
    }
    let failed = |error: std::io::Error| Error::Ranks(format!("cannot start {ranks} ranks: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let port = socket.local_addr().map_err(failed)?.port().to_string();
    let mut socket = Some(OwnedFd::from(socket));
    let mut processes = Processes(Vec::with_capacity(ranks));
    for rank in 0..ranks {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).env(LAUNCHED, std::process::id().to_string());
        let (rank, ranks) = (rank.to_string(), ranks.to_string());
        for (name, value) in [
            ("RANK", rank.as_str()),
            ("LOCAL_RANK", &rank),
            ("WORLD_SIZE", &ranks),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", &port),
        ] {
            command.env(name, value);
        }
        match socket.take() {
            Some(socket) => command.stdin(Stdio::from(socket)).env(SOCKET, "1"),
            None => command.stdin(Stdio::null()),
        };
        processes.0.push(command.spawn().map_err(failed)?);
    }
    let processes = Arc::new(Mutex::new(processes));
    let running = Arc::clone(&processes);
    ctrlc::set_handler(move || lock(&running).terminate())?;
    let result = wait(&processes);
    lock(&processes).kill();
    result.map(|()| true)
}

/// Makes the kernel ask this process to end if its launcher does.
fn end_with_launcher() {
    #[cfg(target_os = "linux")]
    if let Some(launcher) = std::env::var(LAUNCHED).ok().and_then(|id| id.parse::<u32>().ok()) {
        // SAFETY: sets an attribute of this process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        // It may have ended before.
        if std::os::unix::process::parent_id() != launcher {
            std::process::exit(1);
        }
    }
}

/// The processes by rank. Those that still run are killed when this is dropped.
#[derive(Debug)]
struct Processes(Vec<Child>);

impl Processes {
    /// Asks those that still run to end. Ids of others may be in use again.
    fn terminate(&mut self) {
        for process in &mut self.0 {
            if let Ok(None) = process.try_wait() {
                // SAFETY: sends a signal.
                unsafe { libc::kill(process.id() as i32, libc::SIGTERM) };
            }
        }
    }

    fn kill(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Waits until all processes have ended, or for a while after one has failed.
fn wait(processes: &Mutex<Processes>) -> Result<()> {
    let mut failure: Option<(usize, ExitStatus, Instant)> = None;
    loop {
        let mut are_running = false;
        for (rank, process) in lock(processes).0.iter_mut().enumerate() {
            let status = process.try_wait().map_err(|error| Error::Ranks(format!("rank {rank}: {error}")))?;
            are_running |= status.is_none();
            let failed = status.filter(|status| !status.success());
            failure = failure.or_else(|| Some((rank, failed?, Instant::now())));
        }
        let is_over = failure.as_ref().is_some_and(|(_, _, since)| since.elapsed() > GRACE);
        if !are_running || is_over {
            break;
        }
        std::thread::sleep(PERIOD);
    }
    match failure {
        None => Ok(()),
        Some((rank, status, _)) => Err(Error::Ranks(format!("rank {rank} {}", describe(status)))),
    }
}

fn lock(processes: &Mutex<Processes>) -> MutexGuard<'_, Processes> {
    processes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill();
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}
