// SPDX-License-Identifier: MPL-2.0

//! Time of one frame in the network alone, without video and resizing, for one object; for lite up to sixteen.
//!
//! Run with `cargo bench --bench network`, or `-- resnet50` for one of the two networks, `-- objects` for several
//! objects. Runs on the CPU, and on the first CUDA device if there is one.

use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use gstfastganseg::Result;
use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::torch::model::layers::channels_last;
use gstfastganseg::torch::model::{Config, Lite, Regressor, Resnet50, prepare_packed};
use tch::{Device, Kind, Tensor, nn::VarStore};

fn frames(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    mut network: impl Regressor,
    device: Device,
    kind: Kind,
    objects: i64,
) {
    let _no_grad = tch::no_grad_guard();
    let tensors = prepare_packed(&mut network, device, kind).expect("the network is prepared").kind;
    let (height, width) = network.config().size();
    let image = |seed| {
        tch::manual_seed(seed);
        let image = Tensor::rand([1, 3, height, width], (Kind::Float, Device::Cpu));
        channels_last(&image.to_device(device).to_kind(tensors)).expect("an image")
    };
    let (first, second) = (image(1), image(2));
    let mask = Tensor::zeros([objects, 1, height, width], (Kind::Float, device));
    for object in 0..objects {
        let (rows, columns) = (height / 2 / objects.min(4), width / 2 / objects.min(4));
        let (y, x) = (object / 4 * height / 4, object % 4 * width / 4);
        let _ = mask.get(object).narrow(1, y, rows).narrow(2, x, columns).fill_(1.0);
    }
    let reference = network.reference(&first, &mask).expect("a reference");
    let mut state = network.start(&reference).expect("a state");
    let mut step = || -> Result<()> {
        let _logits = network.step(&second, &reference, &mut state)?;
        // The reference masks, so that the memory bank fills as it does with visible objects.
        network.observe(&mask, &reference, &mut state)?;
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
        Ok(())
    };
    let precision = match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => "float32",
    };
    let place = if device == Device::Cpu { "cpu" } else { "cuda" };
    let several = if objects == 1 { String::new() } else { format!(" {objects} objects") };
    let label = format!("{name} {width}x{height} {precision} {place}{several}");
    group.bench_function(label, |bencher| bencher.iter(|| step().expect("a step")));
}

fn network(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("network");
    group.sample_size(10).warm_up_time(Duration::from_secs(2)).measurement_time(Duration::from_secs(10));
    let mut runs = vec![(Device::Cpu, Kind::Float)];
    // Without bfloat16 instructions a processor is a hundred times slower with it.
    let native = gstfastganseg::torch::kind(Precision::Auto, Device::Cpu).expect("a precision");
    if native != Kind::Float {
        runs.push((Device::Cpu, native));
    }
    match gstfastganseg::torch::open_device(DeviceChoice::Auto) {
        Ok((cuda @ Device::Cuda(_), _)) => {
            runs.extend([Kind::Float, Kind::BFloat16, Kind::Half].map(|kind| (cuda, kind)));
        }
        Ok((_, Some(reason))) => println!("no CUDA device: {reason}"),
        _ => {}
    }
    for (device, kind) in runs {
        tch::manual_seed(0);
        let store = VarStore::new(Device::Cpu);
        let lite = Lite::new(&store.root(), &Config::lite()).expect("lite");
        frames(&mut group, "lite", lite, device, kind, 1);
        let store = VarStore::new(Device::Cpu);
        let resnet50 = Resnet50::new(&store.root(), &Config::resnet50()).expect("resnet50");
        frames(&mut group, "resnet50", resnet50, device, kind, 1);
        if device != Device::Cpu || kind == native {
            for objects in [2, 4, 8, 16] {
                let store = VarStore::new(Device::Cpu);
                let lite = Lite::new(&store.root(), &Config::lite()).expect("lite");
                frames(&mut group, "lite", lite, device, kind, objects);
            }
        }
    }
    group.finish();
}

criterion_group!(benches, network);
criterion_main!(benches);
