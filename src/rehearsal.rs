//! (being built)
use crate::hostname::Identifier;
use std::net::SocketAddr;
/// (being built)
pub struct Settings {
    /// x
    pub gate: SocketAddr,
    /// x
    pub permitted: Vec<Identifier>,
}
impl Default for Settings {
    fn default() -> Self {
        Self { gate: ([127, 0, 0, 1], 0).into(), permitted: vec![] }
    }
}
/// (being built)
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct RehearsalError;
/// (being built)
pub struct EmbeddedCa;
impl EmbeddedCa {
    /// (being built)
    pub async fn start(_: Settings) -> Result<Self, RehearsalError> {
        Ok(Self)
    }
    /// (being built)
    pub fn root_pem(&self) -> &str {
        ""
    }
    /// (being built)
    pub fn directory_url(&self) -> String {
        String::new()
    }
}
