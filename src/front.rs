//! (being built)
/// (being built)
pub mod resolver {
    /// (being built)
    #[derive(Debug, Clone)]
    pub struct CertificateResolver;
    impl CertificateResolver {
        /// (being built)
        pub fn install(&self, _: &str, _: &crate::certificate::Certificate) {}
        /// (being built)
        pub fn remove(&self, _: &str) {}
    }
}
