//! What runs where the network runs on a GPU: recorded steps, frames as they are stored, enlarged masks.

mod enlarge;
mod graphs;
mod layout;
mod upload;

pub use self::enlarge::Gpu;
pub use self::graphs::{Argument, Mode, Recipe, Replays, Use};
pub use self::upload::Upload;
#[cfg(all(test, feature = "plugin"))]
pub use self::upload::picture_of_planes;
