//! Taking over from another ACME client: its accounts, certificates and settings, with a list of what has no
//! place here. What is imported from is only read.

pub mod certbot;
