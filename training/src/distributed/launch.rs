// SPDX-License-Identifier: MPL-2.0

//! Starts all ranks on this machine, for `--ranks`.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::place::{Place, SOCKET};
use crate::{Error, Result};

/// Time for the other ranks to end by themselves after one has failed.
const GRACE: Duration = Duration::from_secs(30);
/// Interval of checks.
const PERIOD: Duration = Duration::from_millis(50);
/// Set for the ranks, which end with their launcher.
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
        command.args(std::env::args_os().skip(1)).env(LAUNCHED, "1");
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
    let ids: Vec<i32> = processes.0.iter().map(|process| process.id() as i32).collect();
    ctrlc::set_handler(move || {
        for &id in &ids {
            // SAFETY: sends a signal.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
    })?;
    processes.wait().map(|()| true)
}

/// Makes the kernel ask this process to end if its launcher does.
fn end_with_launcher() {
    #[cfg(target_os = "linux")]
    if std::env::var_os(LAUNCHED).is_some() {
        // SAFETY: sets an attribute of this process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    }
}

/// The processes by rank. Those that still run are killed when this is dropped.
#[derive(Debug)]
struct Processes(Vec<Child>);

impl Processes {
    /// Waits until all have ended.
    fn wait(mut self) -> Result<()> {
        let mut ended: Vec<Option<ExitStatus>> = vec![None; self.0.len()];
        let mut failure: Option<(usize, ExitStatus, Instant)> = None;
        while ended.iter().any(Option::is_none) {
            for (rank, process) in self.0.iter_mut().enumerate() {
                let status =
                    process.try_wait().map_err(|error| Error::Ranks(format!("rank {rank}: {error}")))?;
                if ended[rank].is_none() && status.is_some_and(|status| !status.success()) {
                    failure = failure.or_else(|| Some((rank, status?, Instant::now())));
                }
                ended[rank] = status;
            }
            if failure.as_ref().is_some_and(|(_, _, since)| since.elapsed() > GRACE) {
                break;
            }
            std::thread::sleep(PERIOD);
        }
        match failure {
            None => Ok(()),
            Some((rank, status, _)) => Err(Error::Ranks(format!("rank {rank} {}", describe(status)))),
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}
