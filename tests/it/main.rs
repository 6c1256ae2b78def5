//! The integration tests: the real binary among real peers, on loopback. One binary, one file a subject.
//!
//! `tests/run` installs the peers and runs everything; [`bed`] is where a test gets its folder, its
//! ports and its servers from.

mod bed;

mod acme;
mod activation;
mod bad_ca;
mod caddy;
mod cli;
mod configs;
mod container;
mod crash;
mod daemon;
mod demo;
mod deploys;
mod doctor;
mod fences;
mod foreign;
mod front;
mod gate;
mod helper;
mod hooks;
mod import;
mod nginx;
mod notify;
mod openings;
mod packages;
mod page;
mod pairs;
mod pebble;
mod preflight;
mod preflight_dns;
mod readme;
mod rehearsal;
mod renew;
mod sandbox;
mod scanners;
mod schedule;
mod servers;
mod shut;
mod siege;
mod store;
mod through_proxy;
mod tickets;
mod tls_alpn;
mod unattended;
mod units;
mod verify;
