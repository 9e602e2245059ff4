//! Functions of tensors of fixed shapes, recorded once and replayed from then on.
//!
//! A GPU runs a small network faster than a processor can hand it the network's several hundred kernels one by
//! one. CUDA graphs hand over all of them at once, provided that every run reads from the same addresses and
//! writes to the same, and that nothing waits for a value in between. So a *plan* owns a place for every
//! argument and every result. Before a run, arguments that lie elsewhere are copied to their places; what a
//! run carries over to the next is written to its place by the run itself.
//!
//! Plans run on the CPU as well ([`Mode::Fixed`]): there a replay calls the recorded function on the same
//! places, which shows on any machine that the function depends on nothing but its arguments.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use crate::cuda::{Graph, Pool, Shim};
use crate::model::Role;
use crate::model::layers::copy_of;
use crate::{Error, Result};

/// How functions are run.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// As they are called.
    #[default]
    Direct,
    /// From place to place, by calling what was recorded.
    Fixed,
    /// From place to place, by replaying a CUDA graph.
    Graphs(Shim),
}

/// An argument of a run.
#[derive(Debug)]
pub struct Argument {
    /// Its content.
    pub tensor: Tensor,
    /// What is done with it.
    pub role: Use,
}

/// How an argument changes from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// By what a regressor's step does with it.
    Model(Role),
    /// It is the same tensor every time, with something else in it, and is read where it is.
    InPlace,
}

/// A recorded function: its results, the first of which take the places of the arguments that are
/// [carried](Role::Carried), in order.
pub type Recipe<C> = Box<dyn Fn(&C, &[Tensor]) -> Result<Vec<Tensor>> + Send>;

/// What a plan is good for: a number of the caller's, and shapes, strides and kinds of all arguments, with the
/// addresses of those that are read where they are.
type Key = (u64, Vec<(Vec<i64>, Vec<i64>, Kind, usize)>);

/// Plans for functions of a context `C`.
pub struct Replays<C> {
    mode: Mode,
    plans: HashMap<Key, Planned<C>>,
    pool: Option<Pool>,
    /// Runs of a kind before it is worth a plan.
    patience: u32,
    /// Plans kept at most.
    limit: usize,
    clock: u64,
    /// What it was before graphs failed, and why they did.
    failed: Option<Mode>,
    failure: Option<String>,
}

enum Planned<C> {
    /// Seen so many times.
    Not(u32, u64),
    Plan(Box<Plan<C>>),
}

struct Plan<C> {
    places: Vec<Tensor>,
    /// Where what lies in the places came from; kept, so that no other tensor can come to lie there.
    sources: Vec<Tensor>,
    results: Vec<Tensor>,
    replay: Replay<C>,
    used: u64,
}

enum Replay<C> {
    Call(Recipe<C>),
    Graph(Graph),
}

impl<C> std::fmt::Debug for Replays<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Replays").field("mode", &self.mode).field("plans", &self.count()).finish()
    }
}

impl<C> Replays<C> {
    /// Plans what was run `patience` times before; of more than `limit` plans the one that has not been used
    /// for longest goes.
    pub fn new(mode: Mode, patience: u32, limit: usize) -> Self {
        Self {
            mode,
            plans: HashMap::new(),
            pool: None,
            patience,
            limit,
            clock: 0,
            failed: None,
            failure: None,
        }
    }

    /// Whether functions are run as they are called, so that results are new tensors each time.
    pub fn is_direct(&self) -> bool {
        matches!(self.mode, Mode::Direct)
    }

    /// Plans there are.
    pub fn count(&self) -> usize {
        self.plans.values().filter(|planned| matches!(planned, Planned::Plan(_))).count()
    }

    /// Why there are no graphs any more, though there should be; said once.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Tries graphs again if they have failed, as after more memory was had. Whether they had.
    pub fn retry(&mut self) -> bool {
        let Some(mode) = self.failed.take() else { return false };
        (self.mode, self.failure) = (mode, None);
        true
    }

    /// Forgets all plans.
    pub fn clear(&mut self) {
        self.plans.clear();
        self.pool = None;
    }

    /// The results of the function that `recipe` gives, for these arguments. They are valid until the next run
    /// of any plan, unless runs are direct. `number` tells apart functions whose arguments look alike.
    ///
    /// # Errors
    /// Those of the function. A graph that cannot be had is none: from then on runs are direct.
    pub fn run(
        &mut self,
        context: &C,
        number: u64,
        arguments: Vec<Argument>,
        recipe: impl FnOnce() -> Recipe<C>,
    ) -> Result<Vec<Tensor>> {
        let direct = |arguments: Vec<Argument>, recipe: Recipe<C>| {
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
                plan.put(arguments)?;
                return plan.replay(context);
            }
            Some(Planned::Not(count, used)) => {
                *used = clock;
                *count += 1;
                *count
            }
            None => {
                self.make_room();
                self.plans.insert(key.clone(), Planned::Not(0, clock));
                0
            }
        };
        if seen < self.patience {
            return direct(arguments, recipe());
        }
        let (plan, results) = self.plan(context, arguments, recipe())?;
        if let Some(mut plan) = plan {
            plan.used = clock;
            self.plans.insert(key, Planned::Plan(Box::new(plan)));
        }
        Ok(results)
    }

    /// Runs the function once on places of its own, and records it.
    fn plan(
        &mut self,
        context: &C,
        arguments: Vec<Argument>,
        recipe: Recipe<C>,
    ) -> Result<(Option<Plan<C>>, Vec<Tensor>)> {
        let places = arguments.iter().map(Argument::place).collect::<Result<Vec<_>>>()?;
        let carried = carried(&arguments);
        let sources = arguments.into_iter().map(|argument| argument.tensor).collect();
        let made = recipe(context, &places)?;
        let results = made
            .iter()
            .enumerate()
            .map(|(index, result)| match carried.get(index) {
                Some(&argument) => {
                    places[argument].shallow_clone().f_copy_(result)?;
                    Ok(places[argument].shallow_clone())
                }
                None => copy_of(result),
            })
            .collect::<Result<Vec<_>>>()?;
        drop(made);
        let shallow_clones = shallow_clones(&results);
        let replay = match &self.mode {
            Mode::Graphs(shim) => {
                let shim = shim.clone();
                match self.capture(&shim, context, &places, &results, &recipe) {
                    Ok(graph) => Replay::Graph(graph),
                    Err(error) => {
                        self.failure = Some(error.to_string());
                        self.failed = Some(std::mem::take(&mut self.mode));
                        self.clear();
                        return Ok((None, shallow_clones));
                    }
                }
            }
            Mode::Direct | Mode::Fixed => Replay::Call(recipe),
        };
        Ok((Some(Plan { places, sources, results, replay, used: 0 }), shallow_clones))
    }

    /// Records what was just run. Nothing is computed meanwhile.
    fn capture(
        &mut self,
        shim: &Shim,
        context: &C,
        places: &[Tensor],
        results: &[Tensor],
        recipe: &Recipe<C>,
    ) -> Result<Graph> {
        let pool = match &self.pool {
            Some(pool) => pool.clone(),
            None => self.pool.insert(shim.pool()?).clone(),
        };
        let graph = shim.capture(&pool, || write(recipe(context, places)?, results))?;
        // What the run before took for its intermediate values lies in the graph's pool from now on.
        shim.empty_cache()?;
        Ok(graph)
    }

    fn make_room(&mut self) {
        let used = |planned: &Planned<C>| match planned {
            Planned::Not(_, used) => *used,
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
    /// Another handle on the tensor.
    pub fn new(tensor: &Tensor, role: Use) -> Self {
        Self { tensor: tensor.shallow_clone(), role }
    }

    /// Where a plan reads it: the tensor itself, or one of the same shape, with its content.
    fn place(&self) -> Result<Tensor> {
        if self.role == Use::InPlace { Ok(self.tensor.shallow_clone()) } else { copy_of(&self.tensor) }
    }
}

impl<C> Plan<C> {
    /// Brings the arguments to their places.
    fn put(&mut self, mut arguments: Vec<Argument>) -> Result<()> {
        // What lies in the place of another argument must leave it before that comes.
        for (index, argument) in arguments.iter_mut().enumerate() {
            let here = |(place, at): (usize, &Tensor)| {
                place != index && at.data_ptr() == argument.tensor.data_ptr() && at.numel() > 0
            };
            if argument.role != Use::InPlace && self.places.iter().enumerate().any(here) {
                argument.tensor = copy_of(&argument.tensor)?;
            }
        }
        for (index, argument) in arguments.into_iter().enumerate() {
            let Argument { tensor, role } = argument;
            let (place, source) = (&mut self.places[index], &mut self.sources[index]);
            let there = tensor.data_ptr() == place.data_ptr();
            let unchanged = role == Use::Model(Role::Constant) && tensor.data_ptr() == source.data_ptr();
            if !there && !unchanged {
                place.f_copy_(&tensor)?;
                *source = tensor;
            }
        }
        Ok(())
    }

    fn replay(&self, context: &C) -> Result<Vec<Tensor>> {
        match &self.replay {
            Replay::Call(recipe) => write(recipe(context, &self.places)?, &self.results)?,
            Replay::Graph(graph) => graph.replay()?,
        }
        Ok(shallow_clones(&self.results))
    }
}

fn key(number: u64, arguments: &[Argument]) -> Key {
    let of = |Argument { tensor, role }: &Argument| {
        let address = if *role == Use::InPlace { tensor.data_ptr() as usize } else { 0 };
        let size = tensor.size();
        // Along a side of one, no stride is ever gone.
        let strides = tensor.stride().into_iter().zip(&size);
        let strides = strides.map(|(stride, &side)| if side == 1 { 0 } else { stride }).collect();
        (size, strides, tensor.kind(), address)
    };
    (number, arguments.iter().map(of).collect())
}

/// Which arguments are carried.
fn carried(arguments: &[Argument]) -> Vec<usize> {
    let carried = |role: Use| role == Use::Model(Role::Carried);
    (0..arguments.len()).filter(|&index| carried(arguments[index].role)).collect()
}

fn shallow_clones(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

fn write(values: Vec<Tensor>, places: &[Tensor]) -> Result<()> {
    if values.len() != places.len() {
        let (found, expected) = (values.len(), places.len());
        return Err(Error::Config(format!("{found} results where {expected} were recorded")));
    }
    for (value, place) in values.iter().zip(places) {
        if value.size() != place.size() {
            let (found, expected) = (value.size(), place.size());
            return Err(Error::Config(format!("a result of {found:?} where {expected:?} was recorded")));
        }
        place.shallow_clone().f_copy_(value)?;
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

    const GIVEN: Use = Use::Model(Role::Given);

    /// What is carried, plus the argument; and that times the context.
    fn sum() -> Recipe<f64> {
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
    fn what_is_carried_stays_in_its_place() {
        for mode in [Mode::Direct, Mode::Fixed] {
            let mut replays = Replays::new(mode, 0, 8);
            let mut total = number(0.0);
            for step in 1..=5 {
                let arguments = vec![
                    Argument::new(&total, Use::Model(Role::Carried)),
                    Argument::new(&number(f64::from(step)), GIVEN),
                ];
                let results = replays.run(&10.0, 0, arguments, sum).unwrap();
                total = results[0].shallow_clone();
                assert_eq!(value(&total), f64::from(step * (step + 1) / 2));
                assert_eq!(value(&results[1]), 10.0 * value(&total));
            }
            // As if tracking began anew.
            let arguments =
                vec![Argument::new(&number(100.0), Use::Model(Role::Carried)), Argument::new(&total, GIVEN)];
            assert_eq!(value(&replays.run(&1.0, 0, arguments, sum).unwrap()[0]), 115.0);
        }
    }

    #[test]
    fn what_is_known_is_copied_when_another_takes_its_place() {
        let mut replays = Replays::new(Mode::Fixed, 0, 8);
        let mut run = |known: &Tensor| {
            let arguments =
                vec![Argument::new(known, Use::Model(Role::Constant)), Argument::new(&number(1.0), GIVEN)];
            value(&replays.run(&1.0, 0, arguments, sum).unwrap()[0])
        };
        let (first, second) = (number(1.0), number(2.0));
        assert_eq!([&first, &first, &second, &second, &first].map(&mut run), [2.0, 2.0, 3.0, 3.0, 2.0]);
    }

    #[test]
    fn what_is_written_in_place_is_read_there() {
        let mut replays = Replays::new(Mode::Fixed, 0, 8);
        let mut place = number(0.0);
        let mut run = |place: &Tensor| {
            let arguments = vec![Argument::new(place, Use::InPlace), Argument::new(&number(1.0), GIVEN)];
            value(&replays.run(&1.0, 0, arguments, sum).unwrap()[0])
        };
        for step in 1..5 {
            let _ = place.fill_(f64::from(step));
            assert_eq!(run(&place), f64::from(step + 1));
        }
        assert_eq!(run(&number(50.0)), 51.0, "elsewhere");
        assert_eq!(value(&place), 4.0, "nothing is written there");
    }

    #[test]
    fn a_plan_knows_what_was_recorded_and_nothing_else() {
        let mut replays = Replays::new(Mode::Fixed, 0, 8);
        let mut run = |secret: f64| {
            let recipe = move || -> Recipe<f64> { Box::new(move |_, x| Ok(vec![&x[0] + secret])) };
            value(&replays.run(&1.0, 0, vec![Argument::new(&number(0.0), GIVEN)], recipe).unwrap()[0])
        };
        assert_eq!((run(1.0), run(2.0)), (1.0, 1.0), "as a graph would");
    }

    #[test]
    fn a_result_whose_shape_depends_on_values_is_an_error() {
        let mut replays = Replays::new(Mode::Fixed, 0, 8);
        let mut run = |values: &[f32]| {
            let recipe = || -> Recipe<f64> { Box::new(|_, x| Ok(vec![x[0].nonzero()])) };
            replays.run(&1.0, 0, vec![Argument::new(&Tensor::from_slice(values), GIVEN)], recipe)
        };
        run(&[1.0, 0.0, 2.0]).unwrap();
        assert!(run(&[0.0, 0.0, 3.0]).unwrap_err().to_string().contains("recorded"));
    }

    #[test]
    fn other_shapes_and_functions_have_other_plans_and_few_are_kept() {
        let mut replays = Replays::new(Mode::Fixed, 1, 3);
        let mut run = |function: u64, length: i64| {
            let x = Tensor::full([length], 1.0, (Kind::Float, Device::Cpu));
            let recipe = || -> Recipe<f64> { Box::new(|_, x| Ok(vec![&x[0] * 2.0])) };
            replays.run(&1.0, function, vec![Argument::new(&x, GIVEN)], recipe).unwrap()[0].size()[0]
        };
        assert_eq!([run(0, 3), run(0, 3), run(1, 3), run(1, 3)], [3; 4]);
        assert_eq!([4, 4, 5, 5, 6, 6, 7, 7].map(|length| run(0, length)), [4, 4, 5, 5, 6, 6, 7, 7]);
        assert_eq!(replays.count(), 3);
        replays.clear();
        assert_eq!(replays.count(), 0);
    }
}
