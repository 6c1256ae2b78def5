//! The integration tests: one binary.
mod configs;
