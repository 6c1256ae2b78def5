//! The integration tests: one binary.

mod rehearsal;
