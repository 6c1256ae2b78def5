//! The TLS front: it ends TLS, routes by host, and passes requests on to the application.
//!
//! Each front thread runs a current-thread runtime with listeners and an upstream pool of its own;
//! what they share is a [`FrontState`], and no reader of it ever waits.

pub mod abilities;
pub mod access;
mod alpn;
mod connection;
mod deadline;
mod demo;
mod frames;
pub mod headers;
mod http1;
mod proxied;
mod proxy;
mod raw;
pub mod resolver;
pub mod routes;
mod thread;
mod tls;
mod tunnel;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{interval, timeout};

pub use self::access::{AccessLog, AccessLogError};
#[cfg(fuzzing)]
pub use self::frames::count_frames;
pub use self::resolver::CertificateResolver;
use self::routes::Routes;
use self::thread::Thread;
use crate::challenge::ChallengeTable;
use crate::config::Front;
use crate::net::accept::{accept_loop, watch};
use crate::net::counter::Counter;
use crate::net::drain::Stop;
use crate::net::limits::{Caps, Connections};

/// How often kept upstream connections are looked after.
const PRUNE_INTERVAL: Duration = Duration::from_secs(5);

/// What all front threads share.
#[derive(Debug)]
pub struct FrontState {
    resolver: CertificateResolver,
    /// What is answered to CAs that ask in a handshake.
    challenges: ChallengeTable,
    routes: ArcSwap<Routes>,
    access_log: Option<AccessLog>,
    /// What it did.
    pub counts: FrontCounts,
}

/// What the front did since the start.
#[derive(Debug, Default)]
pub struct FrontCounts {
    /// Connections.
    pub connections: Counter,
    /// Those that did not get beyond the handshake.
    pub no_handshake: Counter,
}

impl FrontState {
    /// The state for a configuration.
    pub fn new(resolver: CertificateResolver, front: &Front, challenges: ChallengeTable) -> Self {
        resolver.set_default(front.default_certificate.as_deref());
        Self {
            resolver,
            challenges,
            routes: ArcSwap::from_pointee(Routes::new(front)),
            access_log: None,
            counts: FrontCounts::default(),
        }
    }

    /// Writes a line for each response there.
    #[must_use]
    pub fn with_access_log(self, access_log: Option<AccessLog>) -> Self {
        Self { access_log, ..self }
    }

    /// The access log, where there is one.
    pub fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    /// The certificates.
    pub fn resolver(&self) -> &CertificateResolver {
        &self.resolver
    }

    /// Follows a changed configuration: routes at the next request, deadlines at the next connection.
    /// Listeners, threads, the caps on connections and the access log stay as they are; the log's file is opened anew.
    pub fn reload(&self, front: &Front) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
        self.resolver.set_default(front.default_certificate.as_deref());
        self.routes.store(Arc::new(Routes::new(front)));
    }

    fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }
}

/// A thread's share of the caps.
pub fn caps(front: &Front) -> Caps {
    let all = Caps {
        total: front.max_connections,
        per_network: front.max_connections_per_network,
        handshakes: front.max_handshakes,
    };
    all.share(front.threads)
}

/// Serves until `stop`, and then for at most `grace` what is open still. Must run inside a `LocalSet`
/// on a current-thread runtime.
///
/// `caps` are this thread's share.
///
/// # Errors
/// A listener can't be handed to the runtime.
pub async fn serve(
    listeners: Vec<std::net::TcpListener>,
    state: Arc<FrontState>,
    caps: Caps,
    stop: Stop,
    grace: Duration,
) -> io::Result<()> {
    let thread = Rc::new(Thread::new(state));
    let connections = Connections::new("front", caps);
    let mut loops = Vec::new();
    for listener in listeners {
        find_dead_peers(&listener);
        let listener = watch(listener)?;
        let (thread, connections) = (thread.clone(), connections.clone());
        let crowd = connections.clone();
        let on = move |tcp, peer: SocketAddr| match TcpStream::from_std(tcp) {
            Ok(tcp) => {
                // A proxy's are many clients'.
                let network = (!thread.state.routes().trusts(peer.ip())).then(|| peer.ip().into());
                let admission = connections.admit(network);
                spawn_local(connection::serve(thread.clone(), tcp, peer, admission));
            }
            Err(error) => tracing::debug!(%error, client = %peer, "a connection cannot be watched"),
        };
        loops.push(spawn_local(accept_loop(listener, stop.clone(), on, move || crowd.make_room())));
    }
    let pools = thread.pools.clone();
    let pruning = spawn_local(async move {
        let mut ticks = interval(PRUNE_INTERVAL);
        loop {
            ticks.tick().await;
            pools.prune();
        }
    });
    let flushing = thread.clone();
    let flushing = spawn_local(async move {
        let Some(log) = flushing.state.access_log() else { return };
        let mut ticks = interval(access::FLUSH);
        loop {
            ticks.tick().await;
            flushing.lines.flush(log);
        }
    });
    for accepting in loops {
        if let Err(error) = accepting.await {
            tracing::error!(%error, "an accept loop ended before its time; this is a bug, please report it");
        }
    }
    thread.watch.drain();
    if timeout(grace, connections.drained()).await.is_err() {
        tracing::info!(connections = connections.len(), "the grace time is over; closing what is open still");
        thread.watch.end();
        connections.drained().await;
    }
    pruning.abort();
    flushing.abort();
    if let Some(log) = thread.state.access_log() {
        thread.lines.flush(log);
    }
    Ok(())
}

/// A peer that vanished without a word is found within two minutes, whatever protocol was spoken; on
/// Linux connections inherit this from their listener.
fn find_dead_peers(listener: &std::net::TcpListener) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    if let Err(error) = SockRef::from(listener).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "TCP keep-alive cannot be set");
    }
}
