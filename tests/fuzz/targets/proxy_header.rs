//! Bytes that a connection begins with, where a PROXY header may come.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use wicketgate::net::proxy_protocol::{Beginning, beginning, header, may_begin, readable, speaks};

fuzz_target!(|bytes: &[u8]| {
    let whole = beginning(bytes);
    // However few come at once: the first decision is the only one.
    let decided = (0..=bytes.len()).find(|&n| beginning(&bytes[..n]) != Beginning::Undecided);
    match decided {
        Some(n) => assert_eq!(beginning(&bytes[..n]), whole),
        None => assert_eq!(whole, Beginning::Undecided),
    }
    // What is read of a header is nothing but the header.
    if bytes.first().is_some_and(|byte| may_begin(*byte)) && speaks(bytes) {
        let mut read = 1;
        while read < bytes.len() && beginning(&bytes[..read]) == Beginning::Undecided {
            let more = readable(&bytes[..read]);
            assert!(more > 0);
            read = (read + more).min(bytes.len());
        }
        if let Beginning::Header { length, .. } = beginning(&bytes[..read]) {
            assert_eq!(read, length);
        }
    }
    if let Beginning::Header { length, client } = whole {
        assert!((8..=bytes.len()).contains(&length));
        if let Some(client) = client {
            let again = header(client, SocketAddr::from(([127, 0, 0, 1], 80)), Some("a.test"), None);
            assert_eq!(beginning(&again), Beginning::Header { length: again.len(), client: Some(client) });
        }
    }
});
