//! `doctor`: whole installations with every fault, each with its file and line; one without; and the rules
//! that it prints, in the real servers.

mod faults;
mod installation;
mod rules;
