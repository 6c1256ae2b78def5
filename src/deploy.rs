//! After a renewal: servers that hold the certificate elsewhere are made to read it again.
//!
//! The network-facing process runs no command itself. It asks the [`helper`], a process of the same
//! binary that was started before it and holds no listener, and only by number and name: which service,
//! which certificate, which version; for the command of `[notify]`, a bounded JSON document goes to its
//! standard input. The helper reads the configuration itself; what it is told beyond numbers and names that
//! the configuration has, it does not do.
//!
//! What is done to a server, and in which order, is decided in [`transaction`]; [`verify`] shakes hands with a
//! server as its clients do, and tells whether it shows what it was given.
//!
//! The helper finds out about the servers it knows (`processes`), decides (`services`), runs commands
//! (`command`; `scripts` are looked at before, and what still runs is noted in `running`), writes copies (`copy`) and speaks to HAProxy (`haproxy`).

mod command;
mod copy;
mod haproxy;
pub mod helper;
pub mod openings;
mod processes;
mod running;
mod scripts;
mod services;
pub mod starter;
pub mod transaction;
mod trust;
pub mod verify;
mod wire;

mod client;

pub use client::{DeployError, Helper};
