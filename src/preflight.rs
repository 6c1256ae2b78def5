//! What the CA would find, looked at before it is asked.

pub mod caa;
pub mod dns;
pub mod evidence;
