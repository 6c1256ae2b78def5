//! Orders that are given up. Their pending authorizations are deactivated at the CA (RFC 8555 section
//! 7.5.2), for CAs limit how many may pile up: best effort, for a few seconds, and never one that another
//! order of this account waits for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instant_acme::{AuthorizationStatus, Order};

use super::session::nonce_safe;
use crate::words::printable;

/// Longest time for all authorizations of an order.
const PATIENCE: Duration = Duration::from_secs(3);

/// The authorizations that orders of one account wait for, by URL. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Awaited(Arc<Mutex<HashMap<String, usize>>>);

impl Awaited {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for it.
    fn is_free(&self, url: &str) -> bool {
        !self.lock().contains_key(url)
    }
}

/// An order under way. Unless they are settled, its pending authorizations are deactivated when it is
/// dropped, as far as the program still runs then.
pub(super) struct Underway {
    order: Option<Order>,
    urls: Vec<String>,
    awaited: Awaited,
    is_settled: bool,
}

impl Underway {
    pub(super) fn new(mut order: Order, awaited: Awaited) -> Self {
        let urls: Vec<_> = order.state().authorizations.iter().map(|a| a.url.clone()).collect();
        let mut counts = awaited.lock();
        for url in &urls {
            *counts.entry(url.clone()).or_default() += 1;
        }
        drop(counts);
        Self { order: Some(order), urls, awaited, is_settled: false }
    }

    /// The order.
    pub(super) fn order(&mut self) -> &mut Order {
        self.order.as_mut().expect("an order under way has not ended")
    }

    /// Nothing is pending any more, or the CA is not to be asked.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
    }

    /// Deactivates now; it takes a few seconds at most.
    pub(super) async fn abandon(mut self) {
        self.let_go();
        if let Some(order) = self.order.take() {
            deactivate(order, &self.awaited).await;
        }
    }

    fn let_go(&mut self) {
        let mut counts = self.awaited.lock();
        for url in self.urls.drain(..) {
            if let Some(count) = counts.get_mut(&url) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&url);
                }
            }
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.let_go();
        if self.is_settled {
            return;
        }
        if let (Some(order), Ok(runtime)) = (self.order.take(), tokio::runtime::Handle::try_current()) {
            let awaited = self.awaited.clone();
            runtime.spawn(async move { deactivate(order, &awaited).await });
        }
    }
}

async fn deactivate(mut order: Order, awaited: &Awaited) {
    let deactivating = async {
        let mut count = 0;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let Ok(mut authorization) = authorization else { continue };
            let is_pending = authorization.status == AuthorizationStatus::Pending;
            if is_pending && awaited.is_free(authorization.url()) {
                match nonce_safe!(authorization.deactivate()) {
                    Ok(_) => count += 1,
                    Err(error) => {
                        let error = printable(&error.to_string(), 200);
                        tracing::debug!(error, "a pending authorization stays at the CA");
                    }
                }
            }
        }
        count
    };
    match tokio::time::timeout(PATIENCE, deactivating).await {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "deactivated the pending authorizations of a failed order"),
        Err(_) => tracing::debug!("the CA took too long to deactivate the authorizations of a failed order"),
    }
}
