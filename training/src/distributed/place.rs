// SPDX-License-Identifier: MPL-2.0

//! Place of this process among the ranks, from the environment that a launcher sets.

use std::net::{IpAddr, TcpListener};
use std::os::fd::FromRawFd;

use crate::{Error, Result};

/// Port of the store by default, as in PyTorch.
const PORT: u16 = 29_500;
/// Set by [`launch`](super::launch) for rank 0, whose standard input is then the socket of the store.
pub(super) const SOCKET: &str = "FASTGANSEG_STORE_SOCKET";

/// Place of a process among several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes, at least 2.
    pub ranks: usize,
    /// Number of this process on its machine, from 0.
    pub local_rank: usize,
    /// Address of the machine of the store, that of rank 0.
    pub address: String,
    /// Port of the store.
    pub port: u16,
    /// Whether the launcher serves the store, as `torchrun` does. Otherwise rank 0 does.
    pub launcher_serves: bool,
    /// Number of restarts by the launcher.
    pub restart: u32,
}

impl Place {
    /// Reads the place from the environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT as set by
    /// `torchrun` and others, else the variables of a step of Slurm. `None` for a single process.
    ///
    /// # Errors
    /// [`Error::Ranks`] if variables are missing or invalid.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::read(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<usize>> {
            get(name)
                .map(|text| {
                    let refuse =
                        || Error::Ranks(format!("{name} = {text:?} in the environment is not a number"));
                    text.trim().parse().map_err(|_| refuse())
                })
                .transpose()
        };
        let needed = |name: &str, found: Option<usize>| {
            found.ok_or_else(|| {
                Error::Ranks(format!("WORLD_SIZE is set in the environment, but {name} is not"))
            })
        };
        let single_node = number("SLURM_STEP_NUM_NODES")? == Some(1);
        let (rank, ranks, local_rank, slurm) = if let Some(ranks) = number("WORLD_SIZE")? {
            if ranks == 1 {
                return Ok(None);
            }
            let rank = needed("RANK", number("RANK")?)?;
            (rank, ranks, needed("LOCAL_RANK", number("LOCAL_RANK")?)?, false)
        } else if let (Some(rank), Some(ranks), Some(local_rank)) =
            (number("SLURM_PROCID")?, number("SLURM_STEP_NUM_TASKS")?, number("SLURM_LOCALID")?)
        {
            if ranks == 1 {
                return Ok(None);
            }
            (rank, ranks, local_rank, true)
        } else {
            return Ok(None);
        };
        if rank >= ranks {
            return Err(Error::Ranks(format!("rank {rank} of {ranks} ranks; ranks count from 0")));
        }
        let address = match get("MASTER_ADDR") {
            Some(address) => address,
            None if slurm && single_node => "127.0.0.1".to_owned(),
            None if slurm => {
                return Err(Error::Ranks(
                    "MASTER_ADDR is not set; before srun, run export MASTER_ADDR=$(scontrol show hostnames \
                     \"$SLURM_JOB_NODELIST\" | head -n 1)"
                        .into(),
                ));
            }
            None => {
                return Err(Error::Ranks(
                    "WORLD_SIZE is set in the environment, but MASTER_ADDR is not; set it to the address of rank 0"
                        .into(),
                ));
            }
        };
        let port = number("MASTER_PORT")?.unwrap_or(PORT.into());
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        Ok(Some(Self {
            rank,
            ranks,
            local_rank,
            address,
            port: port.ok_or_else(|| Error::Ranks("MASTER_PORT: from 1 to 65535".into()))?,
            launcher_serves: get("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            restart: number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0) as u32,
        }))
    }

    /// Returns a socket that listens at the address of the store if this process serves it.
    pub(super) fn socket(&self) -> Result<Option<TcpListener>> {
        if self.rank > 0 || self.launcher_serves {
            return Ok(None);
        }
        if std::env::var_os(SOCKET).is_some() {
            // SAFETY: the launcher sets the variable only if standard input is a socket. Nothing else reads it.
            return Ok(Some(unsafe { TcpListener::from_raw_fd(0) }));
        }
        // An address that is not this machine's own, as behind a translation of addresses, cannot be listened at.
        let any = if self.address.contains(':') { "::" } else { "0.0.0.0" };
        TcpListener::bind((self.address.as_str(), self.port))
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::AddrNotAvailable => TcpListener::bind((any, self.port)),
                _ => Err(error),
            })
            .map(Some)
            .map_err(|error| {
                Error::Ranks(format!(
                    "rank 0 cannot listen at {}:{} ({error}); set MASTER_PORT to a free port and MASTER_ADDR to an \
                     address of its machine",
                    self.address, self.port
                ))
            })
    }

    /// Whether all ranks are on one machine and talk over its loopback interface.
    pub(super) fn is_loopback(&self) -> bool {
        self.address == "localhost" || self.address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        let get =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Place::read(&get)
    }

    const TORCHRUN: [(&str, &str); 5] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "1234"),
    ];

    #[test]
    fn variables_of_torchrun_are_read() {
        let place = read(&TORCHRUN).unwrap().unwrap();
        assert_eq!((place.rank, place.ranks, place.local_rank, place.port), (3, 4, 1, 1234));
        assert!(place.is_loopback() && !place.launcher_serves);
        let elastic = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")];
        let place = read(&[&TORCHRUN[..], &elastic].concat()).unwrap().unwrap();
        assert!(place.launcher_serves && place.restart == 2);
    }

    #[test]
    fn without_a_launcher_there_is_one_process() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);
        // The script of a job is not a step.
        assert_eq!(
            read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_LOCALID", "0")]).unwrap(),
            None
        );
    }

    #[test]
    fn variables_of_slurm_are_read() {
        let step = [("SLURM_PROCID", "9"), ("SLURM_STEP_NUM_TASKS", "16"), ("SLURM_LOCALID", "1")];
        let error = read(&step).unwrap_err().to_string();
        assert!(error.contains("export MASTER_ADDR=$(scontrol"), "{error}");
        let place = read(&[&step[..], &[("MASTER_ADDR", "127.0.0.2")]].concat()).unwrap().unwrap();
        assert_eq!((place.rank, place.ranks, place.local_rank, place.port), (9, 16, 1, PORT));
        let place = read(&[&step[..], &[("SLURM_STEP_NUM_NODES", "1")]].concat()).unwrap().unwrap();
        assert!(place.is_loopback());
    }

    #[test]
    fn missing_and_invalid_variables_are_named() {
        for missing in ["RANK", "LOCAL_RANK", "MASTER_ADDR"] {
            let rest: Vec<_> = TORCHRUN.into_iter().filter(|(name, _)| *name != missing).collect();
            let error = read(&rest).unwrap_err().to_string();
            assert!(error.contains(&format!("{missing} is not")), "{error}");
        }
        for (name, value) in [
            ("RANK", "4"),
            ("RANK", "x"),
            ("WORLD_SIZE", "-1"),
            ("MASTER_PORT", "0"),
            ("MASTER_PORT", "65536"),
        ] {
            let changed: Vec<_> =
                TORCHRUN.into_iter().map(|(key, old)| (key, if key == name { value } else { old })).collect();
            assert!(read(&changed).is_err(), "{name}={value}");
        }
    }
}
