// SPDX-License-Identifier: MPL-2.0

//! Records functions of tensors with fixed shapes once and replays them.
//!
//! A GPU runs a small network faster than a CPU can launch its several hundred kernels one by one. A CUDA graph
//! launches all of them at once, if every run reads from and writes to the same addresses and does not wait for a
//! value. So a *plan* owns a buffer for each argument and result. Before a run, arguments that are elsewhere in
//! memory are copied to their buffers. Values that are carried from one run to the next are written to their
//! buffers by the run itself.
//!
//! Plans also run on the CPU ([`Mode::Fixed`]): a replay then calls the recorded function on the same buffers.
//! This tests on any machine that the function depends on its arguments only.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use crate::cuda::{Graph, Pool, Shim};
use crate::model::Role;
use crate::model::layers::copy_of;
use crate::{Error, Result};

/// How functions are executed.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// Called directly.
    #[default]
    Direct,
    /// With fixed buffers, by calling the recorded function.
    Fixed,
    /// With fixed buffers, by replaying a CUDA graph.
    Graphs(Shim),
}

#[derive(Debug)]
pub struct Argument {
    pub tensor: Tensor,
    pub role: ArgumentUse,
}

/// How an argument changes from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentUse {
    /// As an input of a network's step.
    Model(Role),
    /// The same tensor with new content in every run; it is read without a copy.
    InPlace,
}

/// A function that can be recorded. Its first results replace the [carried](Role::Recurrent) arguments, in order.
pub type RecordableFn<C> = Box<dyn Fn(&C, &[Tensor]) -> Result<Vec<Tensor>> + Send>;

/// Key of a plan: the caller's function number, and shape, strides, kind and, if [`ArgumentUse::InPlace`], address of each
/// argument.
type Key = (u64, Vec<(Vec<i64>, Vec<i64>, Kind, usize)>);

/// Cache of plans for functions with a context `C`.
pub struct PlanCache<C> {
    mode: Mode,
    plans: HashMap<Key, Planned<C>>,
    pool: Option<Pool>,
    /// Direct runs with a key before it gets a plan.
    direct_runs: u32,
    /// Maximum number of keys.
    limit: usize,
    clock: u64,
    /// Mode before graphs failed.
    failed_mode: Option<Mode>,
    /// Reason of the failure, until it is taken.
    failure: Option<String>,
}

enum Planned<C> {
    /// Number of direct runs and time of the last.
    Unplanned(u32, u64),
    Plan(Box<Plan<C>>),
}

struct Plan<C> {
    buffers: Vec<Tensor>,
    /// Tensors that were copied to the buffers. They are kept alive so that no other tensor reuses their
    /// addresses.
    sources: Vec<Tensor>,
    results: Vec<Tensor>,
    replay: Replay<C>,
    used: u64,
}

enum Replay<C> {
    Call(RecordableFn<C>),
    Graph(Graph),
}

impl<C> std::fmt::Debug for PlanCache<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("PlanCache").field("mode", &self.mode).field("plans", &self.count()).finish()
    }
}

impl<C> PlanCache<C> {
    /// Creates a cache that records a function after `direct_runs` direct runs. Above `limit` entries, the least
    /// recently used is removed.
    pub fn new(mode: Mode, direct_runs: u32, limit: usize) -> Self {
        Self {
            mode,
            plans: HashMap::new(),
            pool: None,
            direct_runs,
            limit,
            clock: 0,
            failed_mode: None,
            failure: None,
        }
    }

    /// Returns whether functions are called directly, so that their results are new tensors.
    pub fn is_direct(&self) -> bool {
        matches!(self.mode, Mode::Direct)
    }

    pub fn count(&self) -> usize {
        self.plans.values().filter(|planned| matches!(planned, Planned::Plan(_))).count()
    }

    /// Returns why graphs have failed. The reason is returned once.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Enables graphs again after a failure, for example with more memory. Returns whether they had failed.
    pub fn retry(&mut self) -> bool {
        let Some(mode) = self.failed_mode.take() else { return false };
        (self.mode, self.failure) = (mode, None);
        true
    }

    pub fn clear(&mut self) {
        self.plans.clear();
        self.pool = None;
    }

    /// Runs the function that `recipe` returns and returns its results.
    ///
    /// Unless runs are direct, results are valid until the next run of any plan. `number` distinguishes functions
    /// whose arguments have the same shapes.
    ///
    /// # Errors
    /// Those of the function. A graph that cannot be captured is not an error: all later runs are direct.
    pub fn run(
        &mut self,
        context: &C,
        number: u64,
        arguments: Vec<Argument>,
        recipe: impl FnOnce() -> RecordableFn<C>,
    ) -> Result<Vec<Tensor>> {
        let direct = |arguments: Vec<Argument>, recipe: RecordableFn<C>| {
            let tensors: Vec<Tensor> = arguments.into_iter().map(|argument| argument.tensor).collect();
            recipe(context, &tensors)
        };
        if self.is_direct() {
            return direct(arguments, recipe());
        }
        self.clock += 1;
        let clock = self.clock;
        let key = key(number, &arguments);
        let seen = match self.plans.get_mut(&key) {
            Some(Planned::Plan(plan)) => {
                plan.used = clock;
                plan.copy_arguments(arguments)?;
                return plan.replay(context);
            }
            Some(Planned::Unplanned(count, used)) => {
                *used = clock;
                *count += 1;
                *count
            }
            None => {
                self.evict();
                self.plans.insert(key.clone(), Planned::Unplanned(0, clock));
                0
            }
        };
        if seen < self.direct_runs {
            return direct(arguments, recipe());
        }
        let (plan, results) = self.plan(context, arguments, recipe())?;
        if let Some(mut plan) = plan {
            plan.used = clock;
            self.plans.insert(key, Planned::Plan(Box::new(plan)));
        }
        Ok(results)
    }

    /// Runs the function once on new buffers and records it. Returns no plan if a graph cannot be captured.
    fn plan(
        &mut self,
        context: &C,
        arguments: Vec<Argument>,
        recipe: RecordableFn<C>,
    ) -> Result<(Option<Plan<C>>, Vec<Tensor>)> {
        let buffers = arguments.iter().map(Argument::buffer).collect::<Result<Vec<_>>>()?;
        let is_carried = |index: &usize| arguments[*index].role == ArgumentUse::Model(Role::Recurrent);
        let carried: Vec<usize> = (0..arguments.len()).filter(is_carried).collect();
        let sources = arguments.into_iter().map(|argument| argument.tensor).collect();
        let outputs = recipe(context, &buffers)?;
        let results = outputs
            .iter()
            .enumerate()
            .map(|(index, result)| match carried.get(index) {
                Some(&argument) => {
                    buffers[argument].shallow_clone().f_copy_(result)?;
                    Ok(buffers[argument].shallow_clone())
                }
                None => copy_of(result),
            })
            .collect::<Result<Vec<_>>>()?;
        drop(outputs);
        let shallow_clones = shallow_clones(&results);
        let replay = match &self.mode {
            Mode::Graphs(shim) => {
                let shim = shim.clone();
                match self.capture(&shim, context, &buffers, &results, &recipe) {
                    Ok(graph) => Replay::Graph(graph),
                    Err(error) => {
                        self.failure = Some(error.to_string());
                        self.failed_mode = Some(std::mem::take(&mut self.mode));
                        self.clear();
                        return Ok((None, shallow_clones));
                    }
                }
            }
            Mode::Direct | Mode::Fixed => Replay::Call(recipe),
        };
        Ok((Some(Plan { buffers, sources, results, replay, used: 0 }), shallow_clones))
    }

    /// Captures a graph of the function, without computing its results.
    fn capture(
        &mut self,
        shim: &Shim,
        context: &C,
        buffers: &[Tensor],
        results: &[Tensor],
        recipe: &RecordableFn<C>,
    ) -> Result<Graph> {
        let pool = match &self.pool {
            Some(pool) => pool.clone(),
            None => self.pool.insert(shim.pool()?).clone(),
        };
        let graph = shim.capture(&pool, || write(recipe(context, buffers)?, results))?;
        // The graph's pool now holds the intermediate values, so the memory of the direct run is no longer needed.
        shim.empty_cache()?;
        Ok(graph)
    }

    fn evict(&mut self) {
        let used = |planned: &Planned<C>| match planned {
            Planned::Unplanned(_, used) => *used,
            Planned::Plan(plan) => plan.used,
        };
        while self.plans.len() >= self.limit.max(1) {
            let oldest = self.plans.iter().min_by_key(|(_, planned)| used(planned));
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            self.plans.remove(&key);
        }
    }
}

impl Argument {
    pub fn new(tensor: &Tensor, role: ArgumentUse) -> Self {
        Self { tensor: tensor.shallow_clone(), role }
    }

    /// Returns the buffer that a plan reads: the tensor itself or a copy.
    fn buffer(&self) -> Result<Tensor> {
        if self.role == ArgumentUse::InPlace {
            Ok(self.tensor.shallow_clone())
        } else {
            copy_of(&self.tensor)
        }
    }
}

impl<C> Plan<C> {
    fn copy_arguments(&mut self, mut arguments: Vec<Argument>) -> Result<()> {
        // An argument in the buffer of another must be moved before that buffer is overwritten.
        for (index, argument) in arguments.iter_mut().enumerate() {
            let overlaps = |(other, buffer): (usize, &Tensor)| {
                other != index && buffer.data_ptr() == argument.tensor.data_ptr() && buffer.numel() > 0
            };
            if argument.role != ArgumentUse::InPlace && self.buffers.iter().enumerate().any(overlaps) {
                argument.tensor = copy_of(&argument.tensor)?;
            }
        }
        for (index, argument) in arguments.into_iter().enumerate() {
            let Argument { tensor, role } = argument;
            let (buffer, source) = (&mut self.buffers[index], &mut self.sources[index]);
            let in_buffer = tensor.data_ptr() == buffer.data_ptr();
            let unchanged =
                role == ArgumentUse::Model(Role::Constant) && tensor.data_ptr() == source.data_ptr();
            if !in_buffer && !unchanged {
                buffer.f_copy_(&tensor)?;
                *source = tensor;
            }
        }
        Ok(())
    }

    fn replay(&self, context: &C) -> Result<Vec<Tensor>> {
        match &self.replay {
            Replay::Call(recipe) => write(recipe(context, &self.buffers)?, &self.results)?,
            Replay::Graph(graph) => graph.replay()?,
        }
        Ok(shallow_clones(&self.results))
    }
}

fn key(number: u64, arguments: &[Argument]) -> Key {
    let of = |Argument { tensor, role }: &Argument| {
        let address = if *role == ArgumentUse::InPlace { tensor.data_ptr() as usize } else { 0 };
        let size = tensor.size();
        // The stride of a dimension of size one has no effect.
        let strides = tensor.stride().into_iter().zip(&size);
        let strides = strides.map(|(stride, &side)| if side == 1 { 0 } else { stride }).collect();
        (size, strides, tensor.kind(), address)
    };
    (number, arguments.iter().map(of).collect())
}

pub fn shallow_clones(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

fn write(values: Vec<Tensor>, buffers: &[Tensor]) -> Result<()> {
    if values.len() != buffers.len() {
        let (found, expected) = (values.len(), buffers.len());
        return Err(Error::Config(format!(
            "a recorded function returned {found} results instead of {expected}"
        )));
    }
    for (value, buffer) in values.iter().zip(buffers) {
        if value.size() != buffer.size() {
            let (found, expected) = (value.size(), buffer.size());
            return Err(Error::Config(format!(
                "a recorded result has shape {found:?} instead of {expected:?}"
            )));
        }
        buffer.shallow_clone().f_copy_(value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn number(value: f64) -> Tensor {
        Tensor::full([2], value, (Kind::Float, Device::Cpu))
    }

    const GIVEN: ArgumentUse = ArgumentUse::Model(Role::Input);

    /// Returns the sum of the carried tensor and the argument, and the sum times the context.
    fn sum() -> RecordableFn<f64> {
        Box::new(|factor, x| {
            let sum = &x[0] + &x[1];
            let product = &sum * *factor;
            Ok(vec![sum, product])
        })
    }

    fn value(tensor: &Tensor) -> f64 {
        tensor.double_value(&[1])
    }

    #[test]
    fn carried_tensors_stay_in_their_buffer() {
        for mode in [Mode::Direct, Mode::Fixed] {
            let mut replays = PlanCache::new(mode, 0, 8);
            let mut total = number(0.0);
            for step in 1..=5 {
                let arguments = vec![
                    Argument::new(&total, ArgumentUse::Model(Role::Recurrent)),
                    Argument::new(&number(f64::from(step)), GIVEN),
                ];
                let results = replays.run(&10.0, 0, arguments, sum).unwrap();
                total = results[0].shallow_clone();
                assert_eq!(value(&total), f64::from(step * (step + 1) / 2));
                assert_eq!(value(&results[1]), 10.0 * value(&total));
            }
            // Tracking restarts: the carried tensor comes from elsewhere.
            let arguments = vec![
                Argument::new(&number(100.0), ArgumentUse::Model(Role::Recurrent)),
                Argument::new(&total, GIVEN),
            ];
            assert_eq!(value(&replays.run(&1.0, 0, arguments, sum).unwrap()[0]), 115.0);
        }
    }

    #[test]
    fn constants_are_copied_when_they_are_replaced() {
        let mut replays = PlanCache::new(Mode::Fixed, 0, 8);
        let mut run = |constant: &Tensor| {
            let arguments = vec![
                Argument::new(constant, ArgumentUse::Model(Role::Constant)),
                Argument::new(&number(1.0), GIVEN),
            ];
            value(&replays.run(&1.0, 0, arguments, sum).unwrap()[0])
        };
        let (first, second) = (number(1.0), number(2.0));
        assert_eq!([&first, &first, &second, &second, &first].map(&mut run), [2.0, 2.0, 3.0, 3.0, 2.0]);
    }

    #[test]
    fn in_place_arguments_are_read_without_a_copy() {
        let mut replays = PlanCache::new(Mode::Fixed, 0, 8);
        let mut input = number(0.0);
        let mut run = |input: &Tensor| {
            let arguments =
                vec![Argument::new(input, ArgumentUse::InPlace), Argument::new(&number(1.0), GIVEN)];
            value(&replays.run(&1.0, 0, arguments, sum).unwrap()[0])
        };
        for step in 1..5 {
            let _ = input.fill_(f64::from(step));
            assert_eq!(run(&input), f64::from(step + 1));
        }
        assert_eq!(run(&number(50.0)), 51.0, "a tensor at another address");
        assert_eq!(value(&input), 4.0, "the tensor is not written to");
    }

    #[test]
    fn a_plan_replays_the_recorded_function_only() {
        let mut replays = PlanCache::new(Mode::Fixed, 0, 8);
        let mut run = |secret: f64| {
            let recipe = move || -> RecordableFn<f64> { Box::new(move |_, x| Ok(vec![&x[0] + secret])) };
            value(&replays.run(&1.0, 0, vec![Argument::new(&number(0.0), GIVEN)], recipe).unwrap()[0])
        };
        assert_eq!((run(1.0), run(2.0)), (1.0, 1.0), "the second recipe is not used, as with a graph");
    }

    #[test]
    fn a_result_whose_shape_depends_on_values_is_an_error() {
        let mut replays = PlanCache::new(Mode::Fixed, 0, 8);
        let mut run = |values: &[f32]| {
            let recipe = || -> RecordableFn<f64> { Box::new(|_, x| Ok(vec![x[0].nonzero()])) };
            replays.run(&1.0, 0, vec![Argument::new(&Tensor::from_slice(values), GIVEN)], recipe)
        };
        run(&[1.0, 0.0, 2.0]).unwrap();
        assert!(run(&[0.0, 0.0, 3.0]).unwrap_err().to_string().contains("recorded"));
    }

    #[test]
    fn plans_are_kept_per_shape_and_function_up_to_the_limit() {
        let mut replays = PlanCache::new(Mode::Fixed, 1, 3);
        let mut run = |function: u64, length: i64| {
            let x = Tensor::full([length], 1.0, (Kind::Float, Device::Cpu));
            let recipe = || -> RecordableFn<f64> { Box::new(|_, x| Ok(vec![&x[0] * 2.0])) };
            replays.run(&1.0, function, vec![Argument::new(&x, GIVEN)], recipe).unwrap()[0].size()[0]
        };
        assert_eq!([run(0, 3), run(0, 3), run(1, 3), run(1, 3)], [3; 4]);
        assert_eq!([4, 4, 5, 5, 6, 6, 7, 7].map(|length| run(0, length)), [4, 4, 5, 5, 6, 6, 7, 7]);
        assert_eq!(replays.count(), 3);
        replays.clear();
        assert_eq!(replays.count(), 0);
    }
}
