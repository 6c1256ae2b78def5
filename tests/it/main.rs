//! The integration tests: one binary.

mod gate;
