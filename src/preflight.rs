//! What the CA would find, looked at before it is asked.

pub mod evidence;
