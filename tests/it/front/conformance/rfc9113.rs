//! What the RFC says of connections, streams, frames and messages; the sections are those of RFC 7540, as in the list.

use super::*;

pub(super) fn connection() -> Vec<Case> {
    let get = &get()[..];
    let long = "x".repeat(4000);
    let too_long: Vec<u8> = (0..5).flat_map(|_| field("x-extra", &long)).collect();
    vec![
        bare(
            "http2 3.5",
            "the client's preface",
            &[PREFACE, &settings(&[(INITIAL_WINDOW_SIZE, WINDOW)])],
            Settings(MAX_CONCURRENT_STREAMS, STREAMS),
        ),
        bare(
            "http2 3.5",
            "another preface",
            &[b"INVALID CONNECTION PREFACE\r\n\r\n"],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case("http2 4.1", "a frame of an unknown type", &[unknown_frame(), ping_out()], Pong(EIGHT)),
        case("http2 4.1", "an unknown flag", &[ping(0x16, EIGHT)], Pong(EIGHT)),
        case("http2 4.1", "the reserved bit", &[frame(PING, 0x16, 1 << 31, &EIGHT)], Pong(EIGHT)),
        case(
            "http2 4.2",
            "DATA of 2^14 bytes",
            &[open(1, &post()), data(END_STREAM, 1, &[b'x'; FRAME])],
            Responds(1),
        ),
        case(
            "http2 4.2",
            "DATA that is larger",
            &[open(1, &post()), data(END_STREAM, 1, &[b'x'; FRAME + 1])],
            StreamError(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "http2 4.2",
            "HEADERS that are larger",
            &[whole(1, &get_with(&too_long))],
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "http2 4.3",
            "a field that is cut off",
            &[whole(1, &[0x40])],
            ConnectionError(&[COMPRESSION_ERROR]),
        ),
        case(
            "http2 4.3",
            "PRIORITY in a header",
            &[headers(0, 1, get), priority(1, 0, 255), continuation(END_HEADERS, 1, &extra())],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 4.3",
            "another stream's HEADERS in a header",
            &[headers(0, 1, get), whole(3, get), continuation(END_HEADERS, 1, &extra())],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case("http2 5.4.1", "the connection is closed", &[frame(PING, 0, 3, &ZEROS)], Closed),
        case("http2 5.4.1", "GOAWAY goes before", &[frame(PING, 0, 3, &ZEROS)], GoAway(PROTOCOL_ERROR)),
        case("http2 5.5", "a frame of an extension", &[unknown_frame(), ping_out()], Pong(EIGHT)),
        case(
            "http2 5.5",
            "a frame of an extension in a header",
            &[headers(END_STREAM, 1, get), unknown_frame()],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}

pub(super) fn streams() -> Vec<Case> {
    let get = &get()[..];
    let many: Vec<Vec<u8>> = (0..=STREAMS).map(|n| whole(2 * n + 1, get)).collect();
    vec![
        case(
            "http2 5.1",
            "idle: DATA",
            &[data(END_STREAM, 1, b"test")],
            StreamError(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case("http2 5.1", "idle: RST_STREAM", &[reset(1, CANCEL)], ConnectionError(&[PROTOCOL_ERROR])),
        case(
            "http2 5.1",
            "idle: WINDOW_UPDATE",
            &[window_update(1, 100)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 5.1",
            "idle: CONTINUATION",
            &[continuation(END_HEADERS, 1, get)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 5.1",
            "half-closed: DATA",
            &[whole(1, get), data(END_STREAM, 1, b"test")],
            StreamError(&[STREAM_CLOSED]),
        ),
        case(
            "http2 5.1",
            "half-closed: HEADERS",
            &[whole(1, get), whole(1, get)],
            StreamError(&[STREAM_CLOSED]),
        ),
        case(
            "http2 5.1",
            "half-closed: CONTINUATION",
            &[whole(1, get), continuation(END_HEADERS, 1, get)],
            StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "http2 5.1",
            "closed by RST_STREAM: DATA",
            &[open(1, get), reset(1, CANCEL), data(END_STREAM, 1, b"test")],
            StreamError(&[STREAM_CLOSED]),
        ),
        case(
            "http2 5.1",
            "closed by RST_STREAM: HEADERS",
            &[open(1, get), reset(1, CANCEL), whole(1, get)],
            StreamError(&[STREAM_CLOSED]),
        ),
        case(
            "http2 5.1",
            "closed by RST_STREAM: CONTINUATION",
            &[open(1, get), reset(1, CANCEL), continuation(END_HEADERS, 1, &extra())],
            StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case("http2 5.1", "closed: DATA", &[whole(1, get)], StreamEnd)
            .then(&[data(END_STREAM, 1, b"test")], StreamError(&[STREAM_CLOSED])),
        case("http2 5.1", "closed: HEADERS", &[whole(1, get)], StreamEnd)
            .then(&[whole(1, get)], ConnectionError(&[STREAM_CLOSED])),
        case("http2 5.1", "closed: CONTINUATION", &[whole(1, get)], StreamEnd).then(
            &[continuation(END_HEADERS, 1, &extra())],
            ConnectionError(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "http2 5.1.1",
            "a stream of an even number",
            &[whole(2, get)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 5.1.1",
            "a stream of a lower number than the last",
            &[whole(5, get), whole(3, get)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        // They can't come to their ends.
        case(
            "http2 5.1.2",
            "more streams at a time than are taken",
            &[settings(&[(INITIAL_WINDOW_SIZE, 0)]), many.concat()],
            StreamError(&[PROTOCOL_ERROR, REFUSED_STREAM]),
        ),
        case(
            "http2 5.3.1",
            "HEADERS that depend on themselves",
            &[headers(END_HEADERS | END_STREAM | WITH_PRIORITY, 1, &[&dependency(1, 255), get].concat())],
            StreamError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 5.3.1",
            "PRIORITY that depends on itself",
            &[priority(1, 1, 255)],
            StreamError(&[PROTOCOL_ERROR]),
        ),
    ]
}

pub(super) fn frames() -> Vec<Case> {
    let (get, post) = (&get()[..], &post()[..]);
    let setting = |id, value| [settings(&[(id, value)])];
    vec![
        case(
            "http2 6.1",
            "DATA on stream 0",
            &[data(END_STREAM, 0, b"test")],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.1",
            "DATA on a stream that is not open",
            &[whole(1, post), data(END_STREAM, 1, b"test")],
            StreamError(&[STREAM_CLOSED]),
        ),
        case(
            "http2 6.1",
            "DATA with more padding than there is",
            &[open(1, &post_with(&field("content-length", "4"))), data(END_STREAM | PADDED, 1, b"\x06test")],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.2",
            "PRIORITY in a header",
            &[headers(0, 1, get), priority(1, 0, 255), continuation(END_HEADERS, 1, &extra())],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.2",
            "another stream's HEADERS in a header",
            &[headers(0, 1, get), whole(3, get), continuation(END_HEADERS, 1, &extra())],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case("http2 6.2", "HEADERS on stream 0", &[whole(0, get)], ConnectionError(&[PROTOCOL_ERROR])),
        case(
            "http2 6.2",
            "HEADERS with more padding than there is",
            &[headers(
                END_HEADERS | END_STREAM | PADDED,
                1,
                &[&[u8::try_from(get.len()).unwrap() + 2], get].concat(),
            )],
            StreamError(&[PROTOCOL_ERROR]),
        ),
        case("http2 6.3", "PRIORITY on stream 0", &[priority(0, 0, 255)], ConnectionError(&[PROTOCOL_ERROR])),
        case(
            "http2 6.3",
            "PRIORITY of 4 bytes",
            &[whole(1, get), frame(PRIORITY, 0, 1, &[0x80, 0, 0, 1])],
            StreamError(&[FRAME_SIZE_ERROR]),
        ),
        case("http2 6.4", "RST_STREAM on stream 0", &[reset(0, CANCEL)], ConnectionError(&[PROTOCOL_ERROR])),
        case(
            "http2 6.4",
            "RST_STREAM on an idle stream",
            &[reset(1, CANCEL)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.4",
            "RST_STREAM of 3 bytes",
            &[whole(1, get), frame(RST_STREAM, 0, 1, &[0; 3])],
            StreamError(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "http2 6.5",
            "SETTINGS that acknowledge and say something",
            &[frame(SETTINGS, ACK, 0, &[0])],
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "http2 6.5",
            "SETTINGS on stream 1",
            &[frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.5",
            "SETTINGS of 3 bytes",
            &[frame(SETTINGS, 0, 0, &[0, 3, 0])],
            StreamError(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        case("http2 6.5.2", "ENABLE_PUSH of 2", &setting(ENABLE_PUSH, 2), ConnectionError(&[PROTOCOL_ERROR])),
        case(
            "http2 6.5.2",
            "INITIAL_WINDOW_SIZE of 2^31",
            &setting(INITIAL_WINDOW_SIZE, 1 << 31),
            ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "http2 6.5.2",
            "MAX_FRAME_SIZE of 2^14 - 1",
            &setting(MAX_FRAME_SIZE, (1 << 14) - 1),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.5.2",
            "MAX_FRAME_SIZE of 2^24",
            &setting(MAX_FRAME_SIZE, 1 << 24),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case("http2 6.5.2", "an unknown setting", &[settings(&[(0xff, 1)]), ping_out()], Pong(EIGHT)),
        case(
            "http2 6.5.3",
            "the same setting twice",
            &[settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)])],
            SettingsAck,
        )
        .then(&[whole(1, get)], Data(Some(1))),
        case("http2 6.5.3", "settings are acknowledged", &setting(ENABLE_PUSH, 0), SettingsAck),
        case("http2 6.7", "PING", &[ping_out()], Pong(EIGHT)),
        case("http2 6.7", "PING that acknowledges", &[ping(ACK, *b"not sent"), ping_out()], Pong(EIGHT)),
        case(
            "http2 6.7",
            "PING on stream 1",
            &[frame(PING, 0, 1, &ZEROS)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.7",
            "PING of 6 bytes",
            &[frame(PING, 0, 0, &[0; 6])],
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "http2 6.8",
            "GOAWAY on stream 1",
            &[frame(GOAWAY, 0, 1, &ZEROS)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case("http2 6.9", "WINDOW_UPDATE by 0", &[window_update(0, 0)], ConnectionError(&[PROTOCOL_ERROR])),
        case(
            "http2 6.9",
            "WINDOW_UPDATE by 0 on stream 1",
            &[open(1, get), window_update(1, 0)],
            StreamError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.9",
            "WINDOW_UPDATE of 3 bytes",
            &[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])],
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        case("http2 6.9.1", "a window of 1", &setting(INITIAL_WINDOW_SIZE, 1), SettingsAck)
            .then(&[whole(1, get)], Data(Some(1))),
        case(
            "http2 6.9.1",
            "a window that gets too wide",
            &[window_update(0, WIDEST), window_update(0, WIDEST)],
            GoAway(FLOW_CONTROL_ERROR),
        ),
        case(
            "http2 6.9.1",
            "a stream's window that gets too wide",
            &[open(1, get), window_update(1, WIDEST), window_update(1, WIDEST)],
            Reset(1, FLOW_CONTROL_ERROR),
        ),
        case("http2 6.9.2", "a window of 0 that is opened", &setting(INITIAL_WINDOW_SIZE, 0), SettingsAck)
            .then(&[whole(1, get), settings(&[(INITIAL_WINDOW_SIZE, 1)])], Data(Some(1))),
        case("http2 6.9.2", "a window below 0", &setting(INITIAL_WINDOW_SIZE, 3), SettingsAck)
            .then(&[whole(1, get)], Data(Some(3)))
            .then(&setting(INITIAL_WINDOW_SIZE, 2), SettingsAck)
            .then(&[window_update(1, 2)], Data(Some(1))),
        case(
            "http2 6.9.2",
            "INITIAL_WINDOW_SIZE of 2^31",
            &setting(INITIAL_WINDOW_SIZE, 1 << 31),
            ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "http2 6.10",
            "more than one CONTINUATION",
            &[
                headers(END_STREAM, 1, get),
                continuation(0, 1, &extra()),
                continuation(END_HEADERS, 1, &extra()),
            ],
            Responds(1),
        ),
        case(
            "http2 6.10",
            "CONTINUATION, then DATA",
            &[headers(0, 1, post), continuation(0, 1, &extra()), data(END_STREAM, 1, b"test")],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.10",
            "CONTINUATION on stream 0",
            &[headers(END_STREAM, 1, get), continuation(END_HEADERS, 0, &extra())],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.10",
            "CONTINUATION after the last HEADERS",
            &[whole(1, get), continuation(END_HEADERS, 1, &extra())],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.10",
            "CONTINUATION after the last CONTINUATION",
            &[
                headers(END_STREAM, 1, get),
                continuation(END_HEADERS, 1, &extra()),
                continuation(END_HEADERS, 1, &extra()),
            ],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 6.10",
            "CONTINUATION after DATA",
            &[
                headers(0, 1, post),
                data(END_STREAM, 1, b"test"),
                continuation(0, 1, &extra()),
                continuation(END_HEADERS, 0, &extra()),
            ],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 7",
            "GOAWAY with an unknown code",
            &[goaway(0, 0xff, b""), ping_out()],
            PongOrClosed(EIGHT),
        ),
        case(
            "http2 7",
            "RST_STREAM with an unknown code",
            &[open(1, post), reset(1, 0xff), ping_out()],
            PongOrClosed(EIGHT),
        ),
    ]
}

pub(super) fn messages() -> Vec<Case> {
    let refused = |section, what, block: &[&[u8]]| {
        case(section, what, &[whole(1, &block.concat())], StreamError(&[PROTOCOL_ERROR]))
    };
    let get = &get()[..];
    let post_of_one = post_with(&field("content-length", "1"));
    vec![
        case(
            "http2 8.1",
            "HEADERS after the first that don't end the stream",
            &[open(1, &post()), data(0, 1, b"test"), open(1, &extra())],
            StreamError(&[PROTOCOL_ERROR]),
        ),
        refused("http2 8.1.2", "a name in upper case", &[get, &field("X-EXTRA", "some")]),
        refused("http2 8.1.2.1", "an unknown pseudo-header field", &[get, &field(":test", "some")]),
        refused("http2 8.1.2.1", "a response's pseudo-header field", &[get, &field(":status", "200")]),
        case(
            "http2 8.1.2.1",
            "a pseudo-header field in trailers",
            &[open(1, &post()), data(0, 1, b"test"), open(1, METHOD_POST)],
            StreamError(&[PROTOCOL_ERROR]),
        ),
        refused("http2 8.1.2.1", "a pseudo-header field after others", &[&extra(), get]),
        refused("http2 8.1.2.2", "a field of the connection", &[get, &field("connection", "keep-alive")]),
        refused(
            "http2 8.1.2.2",
            "TE with more than trailers",
            &[get, &field("trailers", "test"), &field("te", "trailers, deflate")],
        ),
        refused("http2 8.1.2.3", "an empty path", &[METHOD_GET, SCHEME, &field(":path", ""), AUTHORITY]),
        refused("http2 8.1.2.3", "no method", &[SCHEME, PATH, AUTHORITY]),
        refused("http2 8.1.2.3", "no scheme", &[METHOD_GET, PATH, AUTHORITY]),
        refused("http2 8.1.2.3", "no path", &[METHOD_GET, SCHEME, AUTHORITY]),
        refused("http2 8.1.2.3", "two methods", &[get, METHOD_GET]),
        refused("http2 8.1.2.3", "two schemes", &[get, SCHEME]),
        refused("http2 8.1.2.3", "two paths", &[get, PATH]),
        case(
            "http2 8.1.2.6",
            "a body of another length than was said",
            &[open(1, &post_of_one), data(END_STREAM, 1, b"test")],
            StreamError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 8.1.2.6",
            "a body in pieces of another length than was said",
            &[open(1, &post_of_one), data(0, 1, b"test"), data(END_STREAM, 1, b"test")],
            StreamError(&[PROTOCOL_ERROR]),
        ),
        case(
            "http2 8.2",
            "PUSH_PROMISE",
            &[frame(PUSH_PROMISE, END_HEADERS, 1, &[&3_u32.to_be_bytes()[..], get].concat())],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}
