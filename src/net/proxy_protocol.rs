//! The PROXY header (versions 1 and 2) that a proxy may send before anything else, to tell for whom it
//! connects: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader, Tlv};

/// How the two versions begin.
const SIGNATURES: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// What every header of version 2 has: signature, command, family and length, in bytes.
const V2_FIXED: usize = 16;

/// The longest header that is read, in bytes: of version 1 as its text has it; of version 2, which needs 52 without
/// extensions and some hundreds with them, by our choice.
const LONGEST_V1: usize = 107;
const LONGEST: usize = 4096;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// More bytes are needed to tell.
    Undecided,
    /// No PROXY header.
    Plain,
    /// A header.
    Header {
        /// Its length in bytes; what follows belongs to the client.
        length: usize,
        /// The client; none where the proxy speaks for itself, or does not know.
        client: Option<SocketAddr>,
    },
    /// It begins like a header and is none, or is longer than any that is read.
    Broken,
}

/// Decides by the bytes so far.
pub fn beginning(bytes: &[u8]) -> Beginning {
    if !speaks(bytes) {
        let may_become = SIGNATURES.iter().any(|signature| signature.starts_with(bytes));
        return if may_become { Beginning::Undecided } else { Beginning::Plain };
    }
    let longest = if bytes[0] == b'P' { LONGEST_V1 } else { LONGEST };
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) if length <= longest => {
            let client = header.proxied_address().map(|address| canonical(address.source));
            Beginning::Header { length, client }
        }
        Err(Error::BufferTooShort) if bytes.len() < longest => Beginning::Undecided,
        _ => Beginning::Broken,
    }
}

/// How many bytes of a header that has begun can be read without reading beyond it.
pub fn readable(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', ..] if bytes.len() < V2_FIXED => V2_FIXED - bytes.len(),
        [b'\r', ..] => {
            let length = usize::from(u16::from_be_bytes([bytes[V2_FIXED - 2], bytes[V2_FIXED - 1]]));
            (V2_FIXED + length).saturating_sub(bytes.len()).max(1)
        }
        _ => 1,
    }
}

/// A header of version 2 for a client that has come to `to`, with the name that it asked for and the protocol that was
/// agreed on with it.
pub fn header(client: SocketAddr, to: SocketAddr, name: Option<&str>, alpn: Option<&[u8]>) -> Vec<u8> {
    let (client, to) = (canonical(client), canonical(to));
    // One family for both: an IPv4 address has a form of the other.
    let (client, to) =
        if client.is_ipv4() == to.is_ipv4() { (client, to) } else { (mapped(client), mapped(to)) };
    let alpn = alpn.map(|alpn| Tlv::Alpn(alpn.into()));
    let name = name.map(|name| Tlv::Authority(name.into()));
    let header =
        ProxyHeader::with_tlvs(Some(ProxiedAddress::stream(client, to)), alpn.into_iter().chain(name));
    let mut bytes = Vec::with_capacity(128);
    header.encode_v2(&mut bytes).expect("both addresses are of one family, and names are short");
    bytes
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Whether a connection may begin with a header, by its first byte. TLS begins with none of these.
pub fn may_begin(byte: u8) -> bool {
    SIGNATURES.iter().any(|signature| signature[0] == byte)
}

/// Whether these first bytes are the signature of a header.
pub fn speaks(bytes: &[u8]) -> bool {
    SIGNATURES.iter().any(|signature| bytes.starts_with(signature))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\x7f\x00\x00\x01\x10\x00\x00\x50";

    fn header(length: usize, client: &str) -> Beginning {
        Beginning::Header { length, client: Some(SocketAddr::new(client.parse().unwrap(), 4096)) }
    }

    #[test]
    fn told_by_the_first_bytes() {
        use Beginning::{Broken, Plain, Undecided};
        let nobody = |length| Beginning::Header { length, client: None };
        let local = [&V2[..12], b"\x20\x00\x00\x00", b"GET"].concat();
        let mapped = [
            &V2[..12],
            b"\x21\x21\x00\x24",
            &[0; 10],
            b"\xff\xff\xc6\x33\x64\x07",
            &[0; 15],
            b"\x01\x10\x00\x00\x50",
        ]
        .concat();
        let long = [&V2[..12], b"\x21\x11\xff\xff", &[0; 80]].concat();
        for (bytes, expected) in [
            (&b""[..], Undecided),
            (b"P", Undecided),
            (b"PROXY", Undecided),
            (b"PROXY ", Undecided),
            (b"POST / HTTP/1.1\r\n", Plain),
            (b"GET / HTTP/1.1\r\n", Plain),
            (b"\r\n", Undecided),
            (b"\r\nGET / HTTP/1.1\r\n", Plain),
            (b"\r\n\r\n\0\r\nQUIT\n", Undecided),
            (b"\x16\x03\x01", Plain),
            (b"PROXY TCP4 198.51.100.7 127.0.0.1 4096 80\r\nGET /", header(43, "198.51.100.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 4096 80\r\n", header(36, "2001:db8::7")),
            (b"PROXY TCP4 198.51.100.7 127.0.0.1 4096 80\r", Undecided),
            (b"PROXY UNKNOWN\r\n", nobody(15)),
            (b"PROXY TCP4 198.51.100.777 127.0.0.1 4096 80\r\n", Broken),
            (b"PROXY TCP4 198.51.100.7 127.0.0.1 4096 80\n\nGET /", Undecided),
            (b"PROXY TCP9 198.51.100.7 127.0.0.1 4096 80\r\n", Broken),
            (&[b'P'; 200], Plain),
            (&[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(), Broken),
            // Too long, in one portion as in many.
            (&[&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat(), nobody(107)),
            (&[&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat(), Broken),
            (V2, header(28, "198.51.100.7")),
            (&V2[..27], Undecided),
            (&local, nobody(16)),
            (&mapped, header(52, "198.51.100.7")),
            (&long, Undecided),
            (&[&long[..], &[0; LONGEST]].concat(), Broken),
            (&[&V2[..12], &b"\x99\x11\x00\x0c"[..], &V2[16..]].concat(), Broken),
        ] {
            assert_eq!(beginning(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        /// What is written is read again, by exactly its own bytes.
        #[test]
        fn a_header_of_ours(client: SocketAddr, to: SocketAddr, name in proptest::option::of("[a-z.]{1,250}")) {
            let header = super::header(client, to, name.as_deref(), Some(b"h2"));
            let whole = [&header[..], b"\x16\x03\x01 and so on"].concat();
            let mut read = vec![whole[0]];
            while beginning(&read) == Beginning::Undecided {
                let next = readable(&read);
                read.extend_from_slice(&whole[read.len()..read.len() + next]);
            }
            let client = canonical(client);
            prop_assert_eq!(beginning(&read), Beginning::Header { length: header.len(), client: Some(client) });
            prop_assert_eq!(read, header);
        }

        /// Bytes that come one by one lead where they lead together, and no bytes do harm.
        #[test]
        fn any_bytes_in_any_portions(
            version in 0..3_usize,
            tail in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let bytes = [*[SIGNATURES[0], SIGNATURES[1], b""].get(version).unwrap(), &tail].concat();
            let decided = (0..=bytes.len()).map(|n| beginning(&bytes[..n])).find(|b| *b != Beginning::Undecided);
            prop_assert_eq!(decided.unwrap_or(Beginning::Undecided), beginning(&bytes));
        }
    }
}
