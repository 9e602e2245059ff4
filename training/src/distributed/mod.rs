// SPDX-License-Identifier: MPL-2.0

//! Work on several processes, on one machine or many, with torch.distributed (c10d), which is part of libtorch.
//!
//! A launcher such as `torchrun`, `srun` or [`launch`] starts the same program once for each *rank* and tells each its
//! [`Place`]. The ranks meet at a key-value store ([`Ranks::join`]), check that they have the same program and
//! configuration, and connect: over gloo on CPUs, over NCCL on GPUs. Training averages gradients over all ranks
//! with the reducer of PyTorch's DistributedDataParallel; evaluation shares the sequences out.
//!
//! `shim.cpp` and `nccl.cpp` hold the calls to c10d, which the bindings of libtorch lack. They are loaded only with
//! more than one rank.

mod launch;
mod monitor;
mod place;
mod shim;

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use gstfastganseg::device::DeviceChoice;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

pub use launch::launch;
pub use monitor::exit_now;
pub use place::Place;

use crate::check::differing_keys;
use crate::{Error, Result};
use monitor::{Failure, Monitor};
use shim::{Group, LIBTORCH, Shim, Store};

/// Time within which all ranks must have started.
const START: Duration = Duration::from_secs(300);
/// Interval of checks of the store at the start and at the end.
const POLL: Duration = Duration::from_millis(20);
/// Timeout of an operation. Ranks that end are detected by their signs of life; others may be busy for long, for
/// example with more sequences to validate.
const OPERATION: Duration = Duration::from_secs(24 * 3600);
/// Time for other ranks to read a failure from the store before it ends.
const LINGER: Duration = Duration::from_secs(3);

/// The ranks of a run. Clones are the same ranks.
#[derive(Clone, Debug)]
pub struct Ranks(Option<Rc<Joined>>);

#[derive(Debug)]
struct Joined {
    place: Place,
    store: ManuallyDrop<Store>,
    /// Not dropped after a failure, because its destructor would wait for ranks that have ended.
    group: ManuallyDrop<Group>,
    monitor: Monitor,
}

/// Averages the gradients of a network over all ranks during its backward pass.
#[derive(Debug)]
pub(crate) struct Reducer(Option<shim::Reducer>);

impl Ranks {
    /// A single process.
    pub fn single() -> Self {
        Self(None)
    }

    /// Joins the other ranks if a launcher has started several. `settings` must be equal on all ranks.
    ///
    /// # Errors
    /// [`Error::Ranks`] if the environment is incomplete, if a rank does not start within five minutes, or if a rank
    /// has another program or other settings.
    pub fn join(settings: BTreeMap<String, String>) -> Result<Self> {
        let Some(place) = Place::from_environment()? else { return Ok(Self::single()) };
        let Place { rank, ranks, .. } = place;
        let serves = rank == 0 && !place.launcher_serves;
        let refuse = |reason: String| Error::Ranks(format!("rank {rank}: {reason}"));
        let shim = Shim::load().map_err(refuse)?;
        let address = (place.address.as_str(), place.port);
        let prefix = format!("fastganseg/{}", place.restart);
        let connect = |socket| {
            Store::connect(&shim, address, socket, START, &prefix).map_err(|error| {
                refuse(format!(
                    "cannot reach rank 0 at {}:{} ({error}); check MASTER_ADDR, MASTER_PORT and firewalls",
                    place.address, place.port
                ))
            })
        };
        let store = connect(place.socket()?)?;
        let monitor = Monitor::start(connect(None)?, rank, ranks, serves);
        if let Err(error) = meet(&store, &monitor, &place, &Hello::new(ranks, settings)) {
            if serves {
                std::thread::sleep(LINGER);
            }
            return Err(error);
        }
        let local = if place.is_loopback() { "127.0.0.1" } else { "" };
        let group = Group::connect(&store, rank, ranks, local, OPERATION).map_err(refuse)?;
        let (store, group) = (ManuallyDrop::new(store), ManuallyDrop::new(group));
        Ok(Self(Some(Rc::new(Joined { place, store, group, monitor }))))
    }

    /// Ends the work of this rank with its result, after all ranks have. An error is told to the other ranks; if
    /// another rank has ended, the result is an error that names it.
    ///
    /// # Errors
    /// That of `result`, or [`Error::Ranks`] if another rank has ended.
    pub fn finish<T>(self, result: Result<T>) -> Result<T> {
        let Some(joined) = self.0 else { return result };
        let Place { rank, ranks, .. } = joined.place;
        let serves = rank == 0 && !joined.place.launcher_serves;
        let failure = match &result {
            Ok(_) => joined.wait_for_all("done").err(),
            Err(Error::Torch(_) | Error::Core(gstfastganseg::Error::Torch(_)) | Error::Ranks(_)) => {
                joined.monitor.failure_behind_an_error()
            }
            Err(_) => joined.monitor.failure(Duration::ZERO),
        };
        joined.monitor.leave();
        match (failure, result) {
            (None, Ok(value)) => {
                // The store is served until all have seen that all are done.
                let left = joined.store.add("left", 1);
                let begun = Instant::now();
                while serves && left.is_ok() && begun.elapsed() < LINGER {
                    if joined.store.add("left", 0).is_ok_and(|left| left >= ranks as i64) {
                        break;
                    }
                    std::thread::sleep(POLL);
                }
                if let Ok(Joined { store, group, monitor, .. }) = Rc::try_unwrap(joined) {
                    drop(monitor);
                    drop(ManuallyDrop::into_inner(group));
                    drop(ManuallyDrop::into_inner(store));
                }
                Ok(value)
            }
            (Some(failure), _) => {
                if serves {
                    std::thread::sleep(LINGER);
                }
                std::mem::forget(joined);
                Err(failure.into())
            }
            (None, Err(error)) => {
                let failure = Failure { rank, reason: format!("ended with an error: {error}") };
                if failure.publish(&joined.store).is_ok() && serves {
                    std::thread::sleep(LINGER);
                }
                std::mem::forget(joined);
                Err(error)
            }
        }
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |joined| joined.place.rank)
    }

    /// Number of processes.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |joined| joined.place.ranks)
    }

    /// Whether this is rank 0, which writes files and reports.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Returns the device of this rank. With several, `auto` and `cuda` select the GPU with the number of the rank on
    /// its machine.
    ///
    /// # Errors
    /// If the device is not available.
    pub fn device(&self, choice: DeviceChoice) -> Result<DeviceChoice> {
        let Some(joined) = &self.0 else { return Ok(choice) };
        if matches!(choice, DeviceChoice::Cpu | DeviceChoice::Cuda(1..)) {
            return Ok(choice);
        }
        let (device, _) = gstfastganseg::torch::open_device(choice)?;
        if !device.is_cuda() {
            return Ok(choice);
        }
        let (local, devices) = (joined.place.local_rank, tch::Cuda::device_count() as usize);
        match devices {
            // Launchers may show each rank its own GPU only.
            1 => Ok(DeviceChoice::Cuda(0)),
            _ if local < devices => Ok(DeviceChoice::Cuda(local)),
            _ => Err(Error::Ranks(format!(
                "rank {}: it is number {local} on its machine, which has {devices} GPUs; start one rank for each GPU",
                joined.place.rank
            ))),
        }
    }

    /// Prepares operations on tensors of `device`.
    ///
    /// # Errors
    /// [`Error::Ranks`] if NCCL fails.
    pub fn use_device(&self, device: Device) -> Result<()> {
        let Some(joined) = self.0.as_ref().filter(|_| device.is_cuda()) else { return Ok(()) };
        let Err(reason) = joined.group.use_nccl(&joined.store, OPERATION) else { return Ok(()) };
        if self.is_first() {
            eprintln!("gradients are averaged over gloo and the host's memory, which is slow: {reason}");
        }
        joined.group.use_gloo_on_cuda().map_err(Error::Ranks)
    }

    /// Replaces tensors by those of rank 0.
    pub(crate) fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        let Some(joined) = &self.0 else { return Ok(()) };
        let tensors: Vec<Tensor> = tensors.iter().map(Tensor::f_detach).collect::<Result<_, _>>()?;
        joined.group.broadcast(&tensors).map_err(Error::Ranks)
    }

    /// Replaces the elements of a tensor by their means over all ranks.
    ///
    /// # Errors
    /// [`Error::Ranks`] if another rank has ended.
    pub fn average(&self, tensor: &mut Tensor) -> Result<()> {
        let Some(joined) = &self.0 else { return Ok(()) };
        joined.group.all_reduce(tensor).map_err(Error::Ranks)?;
        let _ = tensor.f_div_scalar_(joined.place.ranks as f64)?;
        Ok(())
    }

    /// Replaces numbers by their means over all ranks.
    pub(crate) fn average_numbers(&self, numbers: &mut [f64]) -> Result<()> {
        if self.0.is_none() {
            return Ok(());
        }
        let mut tensor = Tensor::f_from_slice(numbers)?;
        self.average(&mut tensor)?;
        tensor.f_copy_data(numbers, numbers.len())?;
        Ok(())
    }

    /// Returns the values of all ranks, by rank.
    pub(crate) fn gather<T: Serialize + DeserializeOwned>(&self, value: T) -> Result<Vec<T>> {
        let Some(joined) = &self.0 else { return Ok(vec![value]) };
        let Place { rank, ranks, .. } = joined.place;
        let invalid = |error: serde_json::Error| Error::Ranks(format!("rank {rank}: {error}"));
        let own = serde_json::to_vec(&value).map_err(invalid)?;
        // Sums of tensors in which each rank fills its own part.
        let sum = |tensor: &mut Tensor| joined.group.all_reduce(tensor).map_err(Error::Ranks);
        let mut lengths = Tensor::f_zeros([ranks as i64], (Kind::Int64, Device::Cpu))?;
        let _ = lengths.f_narrow(0, rank as i64, 1)?.f_fill_(own.len() as i64)?;
        sum(&mut lengths)?;
        let lengths = Vec::<i64>::try_from(&lengths)?;
        let start: i64 = lengths[..rank].iter().sum();
        let mut all = Tensor::f_zeros([lengths.iter().sum::<i64>()], (Kind::Uint8, Device::Cpu))?;
        all.f_narrow(0, start, own.len() as i64)?.f_copy_(&Tensor::f_from_slice(&own)?)?;
        sum(&mut all)?;
        let all = Vec::<u8>::try_from(&all)?;
        let mut rest = all.as_slice();
        lengths
            .iter()
            .map(|&length| {
                let (part, after) = rest.split_at(length as usize);
                rest = after;
                serde_json::from_slice(part).map_err(invalid)
            })
            .collect()
    }

    /// Returns the indices of this rank's items, in order; see [`gather_shares`](Self::gather_shares).
    pub(crate) fn share(&self, costs: &[usize]) -> Vec<usize> {
        share(costs, self.rank(), self.count())
    }

    /// Returns the results of all items in order, from this rank's own results with the indices that
    /// [`share`](Self::share) has returned.
    pub(crate) fn gather_shares<T: Serialize + DeserializeOwned>(
        &self,
        own: Vec<(usize, T)>,
    ) -> Result<Vec<T>> {
        let mut all: Vec<(usize, T)> = self.gather(own)?.into_iter().flatten().collect();
        all.sort_by_key(|(index, _)| *index);
        Ok(all.into_iter().map(|(_, result)| result).collect())
    }

    /// Waits for all ranks.
    ///
    /// # Errors
    /// [`Error::Ranks`] if another rank has ended.
    pub fn barrier(&self) -> Result<()> {
        self.average_numbers(&mut [0.0])
    }

    /// Creates a reducer of `parameters`, which require gradients, in the order in which backward passes complete
    /// their gradients. With a single process it does nothing.
    pub(crate) fn reducer(&self, parameters: &[Tensor]) -> Result<Reducer> {
        let joined = self.0.as_ref();
        let reducer = joined.map(|joined| joined.group.reducer(parameters)).transpose();
        Ok(Reducer(reducer.map_err(Error::Ranks)?))
    }

    /// Keeps this process from being ended because of another rank while the guard exists.
    pub(crate) fn saving(&self) -> Option<MutexGuard<'_, ()>> {
        self.0.as_ref().map(|joined| joined.monitor.saving())
    }
}

impl Joined {
    /// Waits until all ranks have called this with `key`, or one has ended.
    fn wait_for_all(&self, key: &str) -> Result<(), Failure> {
        let lost = |_| Failure { rank: 0, reason: "cannot be reached any more".into() };
        let mut count = self.store.add(key, 1).map_err(lost)?;
        while count < self.place.ranks as i64 {
            if let Some(failure) = self.monitor.failure(POLL) {
                return Err(failure);
            }
            count = self.store.add(key, 0).map_err(lost)?;
        }
        Ok(())
    }
}

impl Reducer {
    /// Makes the next backward pass, which must begin at `loss`, leave the mean gradients over all ranks. That pass
    /// fails if another rank has ended.
    pub(crate) fn prepare(&self, loss: &Tensor) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |reducer| reducer.prepare(loss)).map_err(Error::Ranks)
    }
}

impl From<Failure> for Error {
    fn from(Failure { rank, reason }: Failure) -> Self {
        Self::Ranks(format!("rank {rank} {reason}"))
    }
}

/// What must be equal on all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    ranks: usize,
    /// Version and checksum of the program.
    build: String,
    libtorch: String,
    settings: BTreeMap<String, String>,
}

impl Hello {
    /// `settings` must be equal on all ranks.
    fn new(ranks: usize, settings: BTreeMap<String, String>) -> Self {
        let program = std::env::current_exe().and_then(std::fs::read);
        let checksum =
            program.map_or("unreadable".to_owned(), |bytes| format!("{:08x}", crc32c::crc32c(&bytes)));
        let build = format!("{} (checksum {checksum})", env!("CARGO_PKG_VERSION"));
        Self { ranks, build, libtorch: LIBTORCH.into(), settings }
    }

    /// Checks whether this rank fits `first`, that of rank 0. The error says what differs.
    fn check(&self, first: &Self) -> Result<(), String> {
        if self.ranks != first.ranks {
            return Err(format!(
                "expects {} ranks, rank 0 {}: set the same WORLD_SIZE",
                self.ranks, first.ranks
            ));
        }
        if (&self.build, &self.libtorch) != (&first.build, &first.libtorch) {
            return Err(format!(
                "runs another build of the program: {} with libtorch {}, rank 0 {} with libtorch {}; install the same \
                 file on every machine",
                self.build, self.libtorch, first.build, first.libtorch
            ));
        }
        let differing: Vec<String> = differing_keys(&self.settings, &first.settings)
            .map(|(key, [here, there])| format!("{key} ({here}, rank 0 {there})"))
            .collect();
        match differing.is_empty() {
            true => Ok(()),
            false => Err(format!("has another configuration than rank 0: {}", differing.join(", "))),
        }
    }
}

/// Waits until all ranks have come and checks them.
fn meet(store: &Store, monitor: &Monitor, place: &Place, hello: &Hello) -> Result<()> {
    let Place { rank, ranks, .. } = *place;
    let broken = |error: String| Error::Ranks(format!("rank {rank}: the store of the ranks failed: {error}"));
    let key = |rank: usize| format!("hello/{rank}");
    let text = serde_json::to_vec(hello).map_err(|error| broken(error.to_string()))?;
    if store.add(&format!("started/{rank}"), 1).map_err(broken)? > 1 {
        return Err(Error::Ranks(format!(
            "rank {rank} has been started twice; RANK must differ between processes"
        )));
    }
    store.set(&key(rank), &text).map_err(broken)?;
    let begun = Instant::now();
    let mut agreed = false;
    loop {
        if let Some(failure) = monitor.failure(POLL) {
            return Err(failure.into());
        }
        if !agreed && let Some(first) = store.get(&key(0)).map_err(broken)? {
            let first: Hello = serde_json::from_slice(&first).map_err(|error| broken(error.to_string()))?;
            if let Err(reason) = hello.check(&first) {
                let failure = Failure { rank, reason };
                failure.publish(store).map_err(broken)?;
                return Err(failure.into());
            }
            agreed = true;
            store.add("agreed", 1).map_err(broken)?;
        }
        if agreed && store.add("agreed", 0).map_err(broken)? >= ranks as i64 {
            return Ok(());
        }
        if begun.elapsed() > START {
            let missing: Vec<String> = (0..ranks)
                .filter(|&rank| !matches!(store.get(&key(rank)), Ok(Some(_))))
                .map(|rank| rank.to_string())
                .collect();
            return Err(Error::Ranks(format!(
                "not all {ranks} ranks have started within {} s at {}:{}; missing: {}",
                START.as_secs(),
                place.address,
                place.port,
                missing.join(", ")
            )));
        }
    }
}

/// Returns the indices of the items of `rank`, in order: the most expensive item first, each to the rank with the
/// least work so far. All items belong to exactly one rank.
fn share(costs: &[usize], rank: usize, ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(costs[item]));
    let mut load = vec![0; ranks];
    let mut own = Vec::new();
    for item in order {
        let least = (0..ranks).min_by_key(|&rank| load[rank]).unwrap_or(0);
        load[least] += costs[item].max(1);
        if least == rank {
            own.push(item);
        }
    }
    own.sort_unstable();
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_belongs_to_one_rank_and_loads_are_similar() {
        let costs: Vec<usize> = (0..30).map(|i| 40 + i * 37 % 61).collect();
        for ranks in 1..=8 {
            let shares: Vec<Vec<usize>> = (0..ranks).map(|rank| share(&costs, rank, ranks)).collect();
            let mut all: Vec<usize> = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..30).collect::<Vec<_>>());
            let loads = shares.iter().map(|own| own.iter().map(|&item| costs[item]).sum::<usize>());
            let (least, most) = (loads.clone().min().unwrap(), loads.max().unwrap());
            assert!(most - least <= 100, "{ranks}: {least} to {most}");
            assert!(shares.iter().all(|own| own.is_sorted()));
        }
        assert_eq!(share(&[5], 1, 3), [0; 0], "more ranks than items");
    }

    #[test]
    fn differences_from_rank_0_are_named() {
        let settings = |seed: &str| BTreeMap::from([("seed".to_owned(), seed.to_owned())]);
        let first = Hello::new(2, settings("1"));
        assert_eq!(Hello::new(2, settings("1")).check(&first), Ok(()));
        let error = Hello::new(2, settings("2")).check(&first).unwrap_err();
        assert!(error.contains("seed (2, rank 0 1)"), "{error}");
        let error = Hello::new(2, BTreeMap::new()).check(&first).unwrap_err();
        assert!(error.contains("seed (not set, rank 0 1)"), "{error}");
        assert!(Hello::new(3, settings("1")).check(&first).unwrap_err().contains("WORLD_SIZE"));
        let other = Hello { build: "0.0.9 (checksum 0)".into(), ..first.clone() };
        assert!(other.check(&first).unwrap_err().contains("another build"));
    }
}
