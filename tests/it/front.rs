//! The TLS front over loopback: real TLS clients on one side, real sockets for an application on the
//! other.

mod frames;
mod rig;

mod access;
mod bodies;
mod browser;
mod conformance;
mod crowds;
mod deadlines;
mod ending;
mod floods;
mod garbage;
mod handshakes;
mod headers;
mod passages;
mod slow;
mod smuggling;
mod swaps;
mod testssl;
mod upstreams;
