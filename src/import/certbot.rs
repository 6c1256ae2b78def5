//! certbot's folder, of its versions 0.x to 5.x: `accounts/`, `renewal/NAME.conf`, `live/NAME/` with its
//! links to `archive/NAME/`.
//!
//! [`Tree::read`] reads it, [`Plan::new`] (pure) decides what becomes of each thing in it, [`keep_account`] and
//! [`keep_lineage`] write to the state directory, and [`Plan::configuration`] (pure) is the file.

mod accounts;
mod conf;
mod configuration;
mod keep;
mod lineages;
mod plan;
mod renewal;
mod tree;

pub use configuration::Place;
pub use keep::{Kept, keep_account, keep_lineage};
pub use plan::{AccountPlan, LineagePlan, Plan};
pub use tree::{Tree, TreeError};
