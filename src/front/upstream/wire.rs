//! HTTP/1.1 as it is spoken to an application (RFC 9112): a request's header in one normal form, a response's header
//! and the frame of its body. What could be read in two ways is an error, and never the beginning of another answer.

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use httparse::Status;
use hyper::ext::ReasonPhrase;

use crate::front::headers::{tokens, write_field};

/// The most that a response's header or its trailers may take, bytes.
pub(super) const HEADER: usize = 64 * 1024;

/// Fields of a response's header or of its trailers.
const FIELDS: usize = 100;

/// A chunk's size and what may follow it on its line, bytes.
const CHUNK_LINE: usize = 4 * 1024;

/// What is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::front) enum WireError {
    #[error("its header cannot be read ({0})")]
    Header(httparse::Error),
    #[error("its header has more than {FIELDS} fields")]
    Fields,
    #[error("its header is larger than {} kB", HEADER / 1024)]
    HeaderSize,
    #[error("its status is {0}, which is none")]
    Status(u16),
    #[error("it tells two lengths, or one that is no number")]
    Length,
    #[error("its `Transfer-Encoding` is not `chunked` alone")]
    Coding,
    #[error("a chunk of it tells no size that can be read")]
    Chunk,
    #[error("its trailers cannot be read")]
    Trailers,
    #[error("it ended in its middle")]
    Short,
}

/// How a request's body is told apart from what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// By its length; so many bytes are still to come.
    Sized(u64),
    Chunked,
}

impl Outgoing {
    /// Of a request whose header is complete.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(TRANSFER_ENCODING) {
            return Some(Self::Chunked);
        }
        let length = std::str::from_utf8(headers.get(CONTENT_LENGTH)?.as_bytes()).ok()?;
        length.parse().ok().map(Self::Sized)
    }
}

/// Writes a request's header, with lines of ours in the place of its `Host`.
pub(super) fn write_head(request: &Parts, ours: &[u8], into: &mut Vec<u8>) {
    let target = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    into.reserve(256 + target.len() + ours.len());
    into.extend_from_slice(request.method.as_str().as_bytes());
    into.push(b' ');
    // A query alone, after an authority or in `:path`, stands at the root (RFC 9112 section 3.2.1).
    if !target.starts_with(['/', '*']) {
        into.push(b'/');
    }
    into.extend_from_slice(target.as_bytes());
    into.extend_from_slice(b" HTTP/1.1\r\n");
    into.extend_from_slice(ours);
    for (name, value) in &request.headers {
        if name != HOST {
            write_field(name, value, into);
        }
    }
    into.extend_from_slice(b"\r\n");
}

/// Writes trailers, and with them the end of a body in chunks.
pub(super) fn write_trailers(trailers: Option<&HeaderMap>, into: &mut Vec<u8>) {
    into.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        write_field(name, value, into);
    }
    into.extend_from_slice(b"\r\n");
}

/// A response's header, and what it says about the rest of the connection.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) incoming: Incoming,
    /// Whether another request may follow.
    pub(super) is_kept: bool,
}

/// Takes a response's header off the bytes that were read; `None` where it is not complete yet.
pub(super) fn read_head(read: &mut Bytes, method: &Method) -> Result<Option<Head>, WireError> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, read, &mut fields) {
        Ok(Status::Complete(length)) if length <= HEADER => length,
        Ok(Status::Partial) if read.len() < HEADER => return Ok(None),
        Ok(_) => return Err(WireError::HeaderSize),
        Err(httparse::Error::TooManyHeaders) => return Err(WireError::Fields),
        Err(error) => return Err(WireError::Header(error)),
    };
    let code = parsed.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).map_err(|_| WireError::Status(code))?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    let reason = parsed.reason.unwrap_or_default();
    if status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(read.slice_ref(reason.as_bytes()))
    {
        response.extensions_mut().insert(reason);
    }
    take_fields(read, parsed.headers, response.headers_mut())?;
    read.advance(length);
    let length = length_told(response.headers_mut())?;
    let framed = incoming(method, status, version, response.headers(), length)?;
    let is_kept = is_kept(version, response.headers()) && framed.is_kept;
    Ok(Some(Head { response, incoming: framed.incoming, is_kept }))
}

/// The fields as parts of the bytes that they stand in.
fn take_fields(read: &Bytes, fields: &[httparse::Header<'_>], into: &mut HeaderMap) -> Result<(), WireError> {
    into.reserve(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| WireError::Header(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_maybe_shared(read.slice_ref(field.value))
            .map_err(|_| WireError::Header(httparse::Error::HeaderValue))?;
        into.append(name, value);
    }
    Ok(())
}

/// RFC 9112 section 9.3.
fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    let has = |wanted: &[u8]| {
        let values = headers.get_all(CONNECTION);
        values.iter().any(|value| tokens(value).any(|t| t.eq_ignore_ascii_case(wanted)))
    };
    if version == Version::HTTP_11 { !has(b"close") } else { has(b"keep-alive") }
}

struct Framed {
    incoming: Incoming,
    is_kept: bool,
}

/// RFC 9112 section 6.3.
fn incoming(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Result<Framed, WireError> {
    let framed = |incoming, is_kept| Ok(Framed { incoming, is_kept });
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if bodiless {
        // Who announces a body where there is none may send it all the same.
        let says_body = headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length > 0);
        return framed(Incoming::Sized(0), status != StatusCode::NO_CONTENT || !says_body);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() || version == Version::HTTP_10 {
            return Err(WireError::Coding);
        }
        return framed(Incoming::Chunked(Chunks::Size), length.is_none());
    }
    match length {
        Some(length) => framed(Incoming::Sized(length), true),
        None => framed(Incoming::UntilClose, false),
    }
}

/// The length that a header tells, once or several times over; it stands there once from now on (RFC 9110 section 8.6).
fn length_told(headers: &mut HeaderMap) -> Result<Option<u64>, WireError> {
    let (mut found, mut told) = (None::<u64>, 0);
    for value in headers.get_all(CONTENT_LENGTH) {
        for text in value.as_bytes().split(|&b| b == b',') {
            told += 1;
            let text = text.trim_ascii();
            let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(text).ok().filter(|_| is_number).and_then(|t| t.parse().ok());
            match (number, found) {
                (Some(number), None) => found = Some(number),
                (Some(number), Some(before)) if number == before => {}
                _ => return Err(WireError::Length),
            }
        }
    }
    if let Some(length) = found
        && told > 1
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    Ok(found)
}

/// What of a response's body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    /// So many bytes.
    Sized(u64),
    Chunked(Chunks),
    /// Everything.
    UntilClose,
}

/// Where in a body in chunks we are (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// Before a size.
    Size,
    /// So many bytes of this chunk are to come.
    Data(u64),
    /// Before the end of a chunk's line.
    DataEnd,
    /// Before the trailers, or the last line.
    Trailers,
    Ended,
}

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Incoming {
    /// Whether nothing is to come.
    pub(super) fn has_ended(self) -> bool {
        matches!(self, Self::Sized(0) | Self::Chunked(Chunks::Ended))
    }

    /// The bytes that will come at least, and whether there are no more.
    pub(super) fn size(self) -> (u64, bool) {
        match self {
            Self::Sized(left) => (left, true),
            Self::Chunked(Chunks::Data(left)) => (left, false),
            Self::Chunked(Chunks::Ended) => (0, true),
            Self::Chunked(_) | Self::UntilClose => (0, false),
        }
    }

    /// Takes a piece off the bytes that were read; `None` where more have to be read.
    pub(super) fn take(&mut self, read: &mut Bytes) -> Result<Option<Piece>, WireError> {
        loop {
            match self {
                Self::Sized(0) | Self::Chunked(Chunks::Ended) => return Ok(None),
                Self::Sized(left) => return Ok(data(read, left)),
                Self::UntilClose if read.is_empty() => return Ok(None),
                Self::UntilClose => return Ok(Some(Piece::Data(std::mem::take(read)))),
                Self::Chunked(chunks) => match chunks {
                    Chunks::Size => match chunk_size(read)? {
                        None => return Ok(None),
                        Some(0) => *chunks = Chunks::Trailers,
                        Some(size) => *chunks = Chunks::Data(size),
                    },
                    Chunks::Data(0) => *chunks = Chunks::DataEnd,
                    Chunks::Data(left) => return Ok(data(read, left)),
                    Chunks::DataEnd => match read.get(..2) {
                        Some(b"\r\n") => {
                            read.advance(2);
                            *chunks = Chunks::Size;
                        }
                        None if b"\r\n".starts_with(read) => return Ok(None),
                        _ => return Err(WireError::Chunk),
                    },
                    Chunks::Trailers => {
                        let Some(trailers) = trailers(read)? else { return Ok(None) };
                        *chunks = Chunks::Ended;
                        return Ok((!trailers.is_empty()).then_some(Piece::Trailers(trailers)));
                    }
                    Chunks::Ended => return Ok(None),
                },
            }
        }
    }
}

/// At most `left` bytes.
fn data(read: &mut Bytes, left: &mut u64) -> Option<Piece> {
    if read.is_empty() {
        return None;
    }
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= length as u64;
    Some(Piece::Data(read.split_to(length)))
}

/// A chunk's size, with its extensions passed over: `None` where the line has not ended.
fn chunk_size(read: &mut Bytes) -> Result<Option<u64>, WireError> {
    let Some(end) = read.iter().take(CHUNK_LINE).position(|&b| b == b'\n') else {
        return if read.len() < CHUNK_LINE { Ok(None) } else { Err(WireError::Chunk) };
    };
    let line = read[..end].strip_suffix(b"\r").ok_or(WireError::Chunk)?;
    if line.contains(&b'\r') {
        return Err(WireError::Chunk);
    }
    let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, rest) = line.split_at(digits);
    let is_extension = rest.trim_ascii_start().first().is_none_or(|&b| b == b';');
    if !(1..=16).contains(&size.len()) || !is_extension {
        return Err(WireError::Chunk);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    read.advance(end + 1);
    size.map(Some).ok_or(WireError::Chunk)
}

/// What follows the last chunk: `None` where it is not complete.
fn trailers(read: &mut Bytes) -> Result<Option<HeaderMap>, WireError> {
    if read.starts_with(b"\r\n") {
        read.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    match httparse::parse_headers(read, &mut fields) {
        Ok(Status::Complete((length, fields))) if length <= HEADER => {
            let mut trailers = HeaderMap::new();
            take_fields(read, fields, &mut trailers)?;
            read.advance(length);
            Ok(Some(trailers))
        }
        Ok(Status::Partial) if read.len() < HEADER => Ok(None),
        _ => Err(WireError::Trailers),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    use http::Request;

    fn head(text: &str, method: &Method) -> Result<Option<(Head, Bytes)>, WireError> {
        let mut read = Bytes::copy_from_slice(text.as_bytes());
        Ok(read_head(&mut read, method)?.map(|head| (head, read)))
    }

    #[test]
    fn a_request_has_one_form() {
        let request = Request::builder()
            .method("POST")
            .uri("/a?b=c")
            .header("accept", "*/*")
            .header("host", "a.test")
            .header("x-y", "1")
            .header("accept", "text/html")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let mut written = Vec::new();
        write_head(&request, b"host: b.test\r\nforwarded: x\r\n", &mut written);
        let text = "POST /a?b=c HTTP/1.1\r\nhost: b.test\r\nforwarded: x\r\naccept: */*\r\naccept: text/html\r\nx-y: 1\r\n\r\n";
        assert_eq!(String::from_utf8(written).unwrap(), text);
        let (asterisk, ()) = Request::builder().method("OPTIONS").uri("*").body(()).unwrap().into_parts();
        let mut written = Vec::new();
        write_head(&asterisk, b"", &mut written);
        let (query, ()) = Request::builder().uri("http://a.test?b=c").body(()).unwrap().into_parts();
        let mut at_root = Vec::new();
        write_head(&query, b"", &mut at_root);
        assert_eq!(at_root, b"GET /?b=c HTTP/1.1\r\n\r\n");
        assert_eq!(written, b"OPTIONS * HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn the_frame_of_a_body() {
        use Incoming::{Chunked, Sized, UntilClose};
        let chunked = Chunked(Chunks::Size);
        for (method, text, frame, is_kept) in [
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Sized(5), true),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\n", Sized(5), false),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n", Sized(5), true),
            ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Sized(5), false),
            ("GET", "HTTP/1.0 200\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", Sized(5), true),
            ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", chunked, true),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                chunked,
                false,
            ),
            ("GET", "HTTP/1.1 200 OK\r\n\r\n", UntilClose, false),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Sized(0), true),
            ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Sized(0), false),
            ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Sized(0), true),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", Sized(0), true),
            ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Sized(0), true),
            ("GET", "HTTP/1.1 100 Continue\r\n\r\n", Sized(0), true),
        ] {
            let (head, rest) = head(text, &method.parse().unwrap()).unwrap().unwrap();
            assert_eq!((head.incoming, head.is_kept), (frame, is_kept), "{method} {text}");
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_length_is_told_once() {
        for method in [Method::GET, Method::HEAD] {
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n";
            let (told, _) = head(text, &method).unwrap().unwrap();
            let lengths: Vec<_> = told.response.headers().get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(lengths, ["5"], "{method}");
            let two = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
            assert_eq!(head(two, &method).unwrap_err(), WireError::Length, "{method}");
        }
    }

    #[test]
    fn what_is_no_header() {
        use WireError::{Coding, Fields, Header, HeaderSize, Length, Status};
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(HEADER));
        let header = |text: &str| head(text, &Method::GET).map(|head| head.is_some());
        for (text, error) in [
            ("SSH-2.0-OpenSSH_9.2\r\n", Header(httparse::Error::Version)),
            ("HTTP/2.0 200 OK\r\n\r\n", Header(httparse::Error::Version)),
            ("HTTP/1.1 020 OK\r\n\r\n", Status(20)),
            ("HTTP/1.1 20 OK\r\n\r\n", Header(httparse::Error::Status)),
            ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", Header(httparse::Error::HeaderName)),
            ("HTTP/1.1 200 OK\r\na : c\r\n\r\n", Header(httparse::Error::HeaderName)),
            ("HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", Header(httparse::Error::HeaderName)),
            ("HTTP/1.1 200 OK\r\na: b\0\r\n\r\n", Header(httparse::Error::HeaderValue)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Length),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Coding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", Coding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Coding),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Coding),
            (&many, Fields),
            (&long, HeaderSize),
        ] {
            assert_eq!(header(text), Err(error), "{}", &text[..text.len().min(80)]);
        }
        for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\na: b\r\n"] {
            assert_eq!(header(text), Ok(false), "{text}");
        }
    }

    /// All pieces of a body that arrives in portions, until it has ended; then what is left over.
    fn body(mut frame: Incoming, portions: &[&[u8]]) -> Result<(Vec<u8>, HeaderMap, Bytes), WireError> {
        let (mut whole, mut trailers, mut read) = (Vec::new(), HeaderMap::new(), Bytes::new());
        for portion in portions {
            read = [&read[..], portion].concat().into();
            while let Some(piece) = frame.take(&mut read)? {
                match piece {
                    Piece::Data(data) => whole.extend_from_slice(&data),
                    Piece::Trailers(found) => trailers = found,
                }
            }
        }
        assert!(frame.has_ended() || frame == Incoming::UntilClose, "{frame:?}");
        Ok((whole, trailers, read))
    }

    #[test]
    fn bodies() {
        let chunked = Incoming::Chunked(Chunks::Size);
        for (frame, text, whole, rest) in [
            (Incoming::Sized(5), "helloHTTP", "hello", "HTTP"),
            (Incoming::UntilClose, "hello", "hello", ""),
            (chunked, "5\r\nhello\r\n0\r\n\r\nrest", "hello", "rest"),
            (chunked, "2\r\nhe\r\n003 ; a=\"b\"\r\nllo\r\n0\r\n\r\n", "hello", ""),
            (chunked, "A\r\n0123456789\r\n000\r\nx-sum: 1\r\n\r\n", "0123456789", ""),
        ] {
            let (found, _, left) = body(frame, &[text.as_bytes()]).unwrap();
            assert_eq!((&found[..], &left[..]), (whole.as_bytes(), rest.as_bytes()), "{text}");
        }
        let (_, trailers, _) = body(chunked, &[b"0\r\nx-sum: 1\r\nX-Sum: 2\r\n\r\n"]).unwrap();
        assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
        let endless = "1;".to_owned() + &"a".repeat(CHUNK_LINE);
        let large = format!("0\r\na: {}", "b".repeat(HEADER));
        for text in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1 1\r\n",
            "1\n1\r\n",
            "1\r;\r\n",
            "11111111111111111\r\n",
            "1\r\nabc",
            "1\r\na\n",
            "0\r\na b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            &endless,
            &large,
        ] {
            assert!(body(chunked, &[text.as_bytes()]).is_err(), "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn how_a_request_is_framed() {
        let of = |name: &'static str, value: &'static str| {
            Outgoing::of(&HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )]))
        };
        assert_eq!(of("content-length", "12"), Some(Outgoing::Sized(12)));
        assert_eq!(of("transfer-encoding", "chunked"), Some(Outgoing::Chunked));
        assert_eq!(of("accept", "x"), None);
    }

    proptest! {
        /// However a body in chunks is cut into portions, the same bytes are found in it.
        #[test]
        fn any_portions(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            has_trailers in any::<bool>(),
            cuts in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x};ext\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);
            write_trailers(has_trailers.then_some(&trailers), &mut text);
            text.extend_from_slice(b"next");
            let (mut portions, mut rest) = (Vec::new(), &text[..]);
            for cut in cuts.iter().cycle() {
                let (portion, left) = rest.split_at((*cut).min(rest.len()));
                portions.push(portion);
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            let (whole, found, left) = body(Incoming::Chunked(Chunks::Size), &portions).unwrap();
            prop_assert_eq!(whole, chunks.concat());
            prop_assert_eq!(found.is_empty(), !has_trailers);
            prop_assert_eq!(&left[..], b"next");
        }

        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut read = Bytes::from(bytes);
            let _ = read_head(&mut read.clone(), &Method::GET);
            let mut frame = Incoming::Chunked(Chunks::Size);
            while let Ok(Some(_)) = frame.take(&mut read) {}
        }
    }
}
