//! What both listening sides need: sockets, an accept loop that never dies, a cap on connections
//! that evicts the useless ones first, and a stop signal to drain by; and what both looking sides need:
//! the first bytes of an answer.

pub mod accept;
pub mod client;
pub mod counter;
pub mod drain;
pub mod early;
pub mod holder;
pub mod inherited;
pub mod limits;
pub mod listen;
pub mod proxy_protocol;
pub mod witness;
