// SPDX-License-Identifier: MPL-2.0

//! GPU side of the tracker: recorded steps, upload of frames as they are stored, and enlargement of masks.

mod enlarge;
mod graphs;
mod layout;
mod upload;

pub use self::enlarge::Gpu;
pub use self::graphs::{Argument, ArgumentUse, Mode, PlanCache, RecordableFn};
pub use self::upload::Upload;
#[cfg(all(test, feature = "plugin"))]
pub use self::upload::picture_of_planes;
