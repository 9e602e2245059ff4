// SPDX-License-Identifier: MPL-2.0

//! Time to average the gradients of each network over all ranks.
//!
//! `cargo bench -p fastganseg-training --bench distributed` starts two ranks on this machine. Started by `torchrun` or
//! `srun`, it measures those ranks. `BENCH_DEVICE=cuda` measures NCCL.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastganseg_training::Result;
use fastganseg_training::distributed::{Place, Ranks, launch};
use tch::{Kind, Tensor};

/// Networks and their numbers of parameters.
const NETWORKS: [(&str, i64); 3] = [("lite", 1_080_000), ("critic", 44_721_088), ("resnet50", 51_580_000)];
const ROUNDS: usize = 7;

fn main() {
    if let Err(error) = start() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn start() -> Result<()> {
    if Place::from_environment()?.is_none() && launch(2)? {
        return Ok(());
    }
    let ranks = Ranks::join(BTreeMap::new())?;
    let measured = measure(&ranks);
    ranks.finish(measured)
}

fn measure(ranks: &Ranks) -> Result<()> {
    let choice = std::env::var("BENCH_DEVICE").unwrap_or_else(|_| "cpu".into());
    let (device, _) = gstfastganseg::torch::open_device(ranks.device(choice.parse()?)?)?;
    ranks.use_device(device)?;
    for (name, parameters) in NETWORKS {
        let mut gradients = Tensor::f_zeros([parameters], (Kind::Float, device))?;
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..=ROUNDS {
            ranks.barrier()?;
            let begun = Instant::now();
            ranks.average(&mut gradients)?;
            // Waits for the device.
            let _ = gradients.f_double_value(&[0])?;
            times.push(begun.elapsed());
        }
        // The first round makes connections.
        times.remove(0);
        times.sort_unstable();
        report(ranks, name, parameters, times[ROUNDS / 2]);
    }
    Ok(())
}

fn report(ranks: &Ranks, name: &str, parameters: i64, time: Duration) {
    if !ranks.is_first() {
        return;
    }
    let count = ranks.count() as f64;
    let sent = 2.0 * (count - 1.0) / count * 4.0 * parameters as f64;
    println!(
        "{name}: {:.1} MB of gradients, {:.1} ms on {count} ranks, {:.2} GB/s sent by each",
        4e-6 * parameters as f64,
        1e3 * time.as_secs_f64(),
        1e-9 * sent / time.as_secs_f64()
    );
}
