//! Upstreams that are given bytes: what comes out of TLS goes on as it is, and what comes back goes into it.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::connection::Client;
use super::tls::RawPassage;
use super::tunnel::{self, End};
use super::upstream::{Failure, Shown, Slot, Socket};
use crate::config::{Raw, Upstream};
use crate::net::proxy_protocol;

/// Passes a connection's bytes until it is over.
pub(super) async fn serve(
    client: &Client,
    address: SocketAddr,
    stream: Box<TlsStream<TcpStream>>,
    passage: RawPassage,
) {
    let Upstream::Raw(raw) = &*passage.upstream else { return };
    match connect(client, address, &stream, &passage, raw).await {
        Ok((socket, _slot)) => {
            let here = End { stream, read: Bytes::new() };
            tunnel::pass(client, here, End { stream: socket, read: Bytes::new() }).await;
        }
        Err(failure) if client.thread.pools.may_warn(&passage.upstream) => {
            let upstream = Shown(&passage.upstream);
            tracing::warn!(%upstream, client = %client.address, "the upstream {failure}");
        }
        Err(failure) => tracing::debug!(client = %client.address, %failure, "no upstream"),
    }
}

async fn connect(
    client: &Client,
    address: SocketAddr,
    stream: &TlsStream<TcpStream>,
    passage: &RawPassage,
    raw: &Raw,
) -> Result<(Socket, Slot), Failure> {
    let slot = client.thread.pools.slot()?;
    let limit = client.thread.state.routes().limits.connect;
    let mut socket = Socket::connect(&passage.upstream, limit).await?;
    if raw.proxy_protocol {
        let (tcp, tls) = stream.get_ref();
        let to = tcp.local_addr().map_err(Failure::Connect)?;
        let header = proxy_protocol::header(address, to, passage.server_name.as_deref(), tls.alpn_protocol());
        socket.write_all(&header).await.map_err(Failure::Connect)?;
    }
    Ok((socket, slot))
}
