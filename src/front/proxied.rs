//! The PROXY header that a trusted peer may begin with, read to its last byte and not beyond: TLS comes next.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::net::proxy_protocol::{Beginning, beginning, may_begin, readable};

/// For whom the peer comes, where it says so.
///
/// # Errors
/// It begins like a header and is none.
pub(super) async fn client(tcp: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut first = [0];
    if tcp.peek(&mut first).await? == 0 || !may_begin(first[0]) {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(128);
    loop {
        let read = bytes.len();
        bytes.resize(read + readable(&bytes), 0);
        tcp.read_exact(&mut bytes[read..]).await?;
        match beginning(&bytes) {
            Beginning::Undecided => {}
            Beginning::Header { client, .. } => return Ok(client),
            Beginning::Plain | Beginning::Broken => {
                let words =
                    "the PROXY header is none that can be read (versions 1 and 2 of the protocol can)";
                return Err(io::Error::new(io::ErrorKind::InvalidData, words));
            }
        }
    }
}
