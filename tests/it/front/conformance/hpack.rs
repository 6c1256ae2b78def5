//! Compressed headers (RFC 7541).

use super::*;

/// Fields of every representation (RFC 7541 section 6); those that are coded by Huffman are of its appendix C.
pub(super) fn understood() -> Vec<Case> {
    const USER_AGENT: u8 = 58;
    const NO_CACHE: &[u8] = &[0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
    const CUSTOM_KEY: &[u8] = &[0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
    const CUSTOM_VALUE: &[u8] = &[0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];
    let accepted =
        |what, more: &[&[u8]]| case("generic 5", what, &[whole(1, &get_with(&more.concat()))], Responds(1));
    vec![
        accepted("indexed", &[&[0x80 | USER_AGENT]]),
        accepted("put into the table, name indexed", &[&[0x40 | USER_AGENT], b"\x04some"]),
        accepted("put into the table, name indexed, Huffman", &[&[0x40 | USER_AGENT], NO_CACHE]),
        accepted("put into the table", &[&[0x40], b"\x07x-extra", b"\x04some"]),
        accepted("put into the table, Huffman", &[&[0x40], CUSTOM_KEY, CUSTOM_VALUE]),
        accepted("not put into the table, name indexed", &[&[15, USER_AGENT - 15], b"\x04some"]),
        accepted("not put into the table, name indexed, Huffman", &[&[15, USER_AGENT - 15], NO_CACHE]),
        accepted("not put into the table", &[&extra()]),
        accepted("not put into the table, Huffman", &[&[0], CUSTOM_KEY, CUSTOM_VALUE]),
        accepted("never indexed, name indexed", &[&[0x1f, USER_AGENT - 15], b"\x04some"]),
        accepted("never indexed, name indexed, Huffman", &[&[0x1f, USER_AGENT - 15], NO_CACHE]),
        accepted("never indexed", &[&[0x10], b"\x07x-extra", b"\x04some"]),
        accepted("never indexed, Huffman", &[&[0x10], CUSTOM_KEY, CUSTOM_VALUE]),
        case(
            "generic 5",
            "a size of the table",
            &[whole(1, &[&[0x3f, 97][..], &get()].concat())],
            Responds(1),
        ),
        case(
            "generic 5",
            "two sizes of the table",
            &[whole(1, &[&[0x3f, 97, 0x3f, 0xe1, 0x1f][..], &get()].concat())],
            Responds(1),
        ),
    ]
}

pub(super) fn refused() -> Vec<Case> {
    let refused = |section, what, block: &[&[u8]]| {
        case(section, what, &[whole(1, &block.concat())], ConnectionError(&[COMPRESSION_ERROR]))
    };
    let get = &get()[..];
    vec![
        // The table of the standard ends at 61, and the connection's own is empty.
        refused("hpack 2.3.3", "a field that is not in the table", &[get, &[0x80 | 62]]),
        refused("hpack 2.3.3", "a name that is not in the table", &[get, &[0x40 | 62, 4], b"some"]),
        refused("hpack 4.2", "a size of the table at the end", &[get, &[0x21]]),
        // "custom-value" of RFC 7541 appendix C.4.3, and the letter a.
        refused(
            "hpack 5.2",
            "more than 7 bits of padding",
            &[get, &[0, 1, b'x', 0x8a, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf, 0xff]],
        ),
        refused("hpack 5.2", "padding of zeros", &[get, &[0, 1, b'x', 0x81, 0x18]]),
        refused(
            "hpack 5.2",
            "the end of a string within it",
            &[get, &[0, 1, b'x', 0x85, 0xff, 0xff, 0xff, 0xfc, 0x7f]],
        ),
        refused("hpack 6.1", "index 0", &[get, &[0x80]]),
        refused("hpack 6.3", "a table that is larger than was agreed on", &[&[0x3f, 0xe2, 0x1f], get]),
    ]
}
