//! What is allowed and must be understood, frame by frame.

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let (get, post) = (&get()[..], &post()[..]);
    let window = |size| settings(&[(INITIAL_WINDOW_SIZE, size)]);
    vec![
        bare(
            "generic 1",
            "the client's preface",
            &[PREFACE, &window(WINDOW)],
            Settings(MAX_CONCURRENT_STREAMS, STREAMS),
        ),
        case("generic 2", "PRIORITY on an idle stream", &[priority(1, 0, 255), ping_out()], Pong(EIGHT)),
        case(
            "generic 2",
            "WINDOW_UPDATE on a half-closed stream",
            &[window(0), whole(1, get), window_update(1, 1)],
            Data(None),
        ),
        case(
            "generic 2",
            "PRIORITY on a half-closed stream",
            &[window(0), whole(1, get), priority(1, 0, 255), window_update(1, 1)],
            Data(None),
        ),
        case(
            "generic 2",
            "RST_STREAM on a half-closed stream",
            &[whole(1, get), reset(1, CANCEL), ping_out()],
            PongOrClosed(EIGHT),
        ),
        case("generic 2", "PRIORITY on a closed stream", &[whole(1, get)], StreamEnd)
            .then(&[priority(1, 0, 255), ping_out()], Pong(EIGHT)),
        case("generic 3.1", "DATA", &[open(1, post), data(END_STREAM, 1, b"test")], Responds(1)),
        case(
            "generic 3.1",
            "more than one DATA",
            &[open(1, post), data(0, 1, b"test"), data(END_STREAM, 1, b"test")],
            Responds(1),
        ),
        case(
            "generic 3.1",
            "DATA with padding",
            &[open(1, post), data(END_STREAM | PADDED, 1, b"\x05test\0\0\0\0\0")],
            Responds(1),
        ),
        case("generic 3.2", "HEADERS", &[whole(1, get)], Responds(1)),
        case(
            "generic 3.2",
            "HEADERS with padding",
            &[headers(END_HEADERS | END_STREAM | PADDED, 1, &[&[8], get, &ZEROS].concat())],
            Responds(1),
        ),
        case(
            "generic 3.2",
            "HEADERS with a priority",
            &[headers(END_HEADERS | END_STREAM | WITH_PRIORITY, 1, &[&dependency(0, 255), get].concat())],
            Responds(1),
        ),
        case("generic 3.3", "PRIORITY of weight 1", &[priority(1, 0, 0), whole(1, get)], Responds(1)),
        case("generic 3.3", "PRIORITY of weight 256", &[priority(1, 0, 255), whole(1, get)], Responds(1)),
        case(
            "generic 3.3",
            "PRIORITY that depends on another",
            &[priority(3, 1, 0), whole(1, get)],
            Responds(1),
        ),
        case("generic 3.3", "PRIORITY, exclusive", &[priority(1, 1 << 31, 0), whole(1, get)], Responds(1)),
        case(
            "generic 3.3",
            "PRIORITY on an idle stream, then a request on a lower one",
            &[priority(3, 0, 255), whole(1, get)],
            Responds(1),
        ),
        case("generic 3.4", "RST_STREAM", &[open(1, get), reset(1, CANCEL), ping_out()], PongOrClosed(EIGHT)),
        case(
            "generic 3.5",
            "SETTINGS",
            &[settings(&[
                (HEADER_TABLE_SIZE, 4096),
                (ENABLE_PUSH, 1),
                (MAX_CONCURRENT_STREAMS, 100),
                (INITIAL_WINDOW_SIZE, WINDOW),
                (MAX_FRAME_SIZE, 16_384),
                (MAX_HEADER_LIST_SIZE, 100),
            ])],
            SettingsAck,
        ),
        case("generic 3.7", "PING", &[ping_out()], Pong(EIGHT)),
        case("generic 3.8", "GOAWAY", &[goaway(0, NO_ERROR, b"bye"), ping_out()], PongOrClosed(EIGHT)),
        case("generic 3.9", "WINDOW_UPDATE on stream 0", &[window_update(0, 1), ping_out()], Pong(EIGHT)),
        case("generic 3.9", "WINDOW_UPDATE on stream 1", &[whole(1, get), window_update(1, 1)], Responds(1)),
        case(
            "generic 3.10",
            "CONTINUATION",
            &[headers(END_STREAM, 1, &get[..5]), continuation(END_HEADERS, 1, &get[5..])],
            Responds(1),
        ),
        case(
            "generic 3.10",
            "more than one CONTINUATION",
            &[
                headers(END_STREAM, 1, &get[..5]),
                continuation(0, 1, &get[5..9]),
                continuation(END_HEADERS, 1, &get[9..]),
            ],
            Responds(1),
        ),
        case("generic 4", "GET", &[whole(1, get)], Responds(1)),
        case(
            "generic 4",
            "HEAD",
            &[whole(1, &[&field(":method", "HEAD"), SCHEME, PATH, AUTHORITY].concat())],
            Responds(1),
        ),
        case("generic 4", "POST", &[open(1, post), data(END_STREAM, 1, b"test")], Responds(1)),
        case(
            "generic 4",
            "POST with trailers",
            &[open(1, &post_with(&field("trailer", "x-extra"))), data(0, 1, b"test"), whole(1, &extra())],
            Responds(1),
        ),
    ]
}
