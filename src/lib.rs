//! wicketgate answers ACME http-01 challenges on port 80 from memory, redirects everything else to
//! https, obtains and renews certificates by itself, and puts them where they are served.
//!
//! # The three data paths
//! 1. **A request on port 80**: [`net`] listens → [`gate`] → [`gate::reply`] (pure) → bytes.
//! 2. **A certificate, from due to served**: [`renewal`] sleeps until [`renewal::schedule`] (pure) says
//!    so → [`renewal::ledger`] (pure) allows it → the gate listens → [`preflight`] finds nothing that
//!    would fail → the ledger is charged and saved → [`acme`] puts its tokens into the [`challenge`] table
//!    under a guard; the CA comes by path 1 → [`certificate::Certificate::new`] proves the answer →
//!    [`store`] saves → [`front::resolver`] installs → [`deploy`] reloads → [`notify`] tells → the next
//!    moment is fixed.
//! 3. **A TLS connection**: [`net`] listens → handshake within a deadline → [`front::resolver`] by SNI
//!    → HTTP/1.1 or HTTP/2 by ALPN → [`front::headers`] (pure) → `front::upstream` → back.
//!
//! Beside them stands [`doctor`], which reads other servers' configurations and changes nothing.
//!
//! # The import rule
//! Imports point down this list; siblings do not import each other. `daemon` alone knows everybody.
//! `tests/it/fences.rs` checks it.

pub mod cli;
pub mod daemon;

pub mod admin;

pub mod doctor;
pub mod import;
pub mod notify;
pub mod renewal;

pub mod acme;
pub mod deploy;
pub mod front;
pub mod gate;
pub mod preflight;
pub mod rehearsal;
pub mod store;

pub mod foreign;
pub mod net;
pub mod sandbox;

pub mod config;

pub mod certificate;
pub mod challenge;
pub mod clock;
pub mod folder;
pub mod glob;
pub mod hostname;
pub mod tickets;
pub mod words;
