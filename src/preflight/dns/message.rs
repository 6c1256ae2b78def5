//! A question to a name server and its answer, as bytes (RFC 1035 section 4, EDNS by RFC 6891).

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RecordType};

use crate::words::printable;

/// What fits through nearly every path in one piece (RFC 9715).
const PAYLOAD: u16 = 1232;
/// The most that a server's own words may be, in characters.
const WORDS: usize = 200;
/// The option of an extended error (RFC 8914 section 2).
const EXTENDED_ERROR: u16 = 15;
const HEADER: usize = 12;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// About which name, absolute.
    pub(super) name: Name,
    /// Which records.
    pub(super) kind: RecordType,
    /// The server is to ask others where it does not know by itself (RD).
    pub(super) recursive: bool,
    /// Signatures are to be left unchecked (CD, RFC 4035 section 3.2.2).
    pub(super) unchecked: bool,
    /// Signatures are to come along (DO, RFC 4035 section 3.2.1).
    pub(super) signatures: bool,
}

impl Question {
    /// A question to a resolver.
    pub(super) fn new(name: &Name, kind: RecordType) -> Self {
        Self { name: name.clone(), kind, recursive: true, unchecked: false, signatures: false }
    }

    /// The same, with signatures left unchecked.
    pub(super) fn unchecked(self) -> Self {
        Self { unchecked: true, ..self }
    }

    /// The same, with signatures to come along.
    pub(super) fn signed(self) -> Self {
        Self { signatures: true, ..self }
    }

    /// A question to a zone's own server.
    pub(super) fn direct(name: &Name, kind: RecordType) -> Self {
        Self { recursive: false, ..Self::new(name, kind) }
    }

    /// The question as it is sent.
    pub(super) fn bytes(&self, id: u16, edns: bool) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.recursive;
        message.metadata.checking_disabled = self.unchecked;
        message.add_query(Query::query(self.name.clone(), self.kind));
        if edns {
            let mut options = Edns::new();
            options.set_max_payload(PAYLOAD).set_dnssec_ok(self.signatures);
            message.set_edns(options);
        }
        message.to_vec().expect("a name and a type fit into a message")
    }

    /// The answer in these bytes, if they are one to this question.
    pub(super) fn answer(&self, id: u16, bytes: &[u8]) -> Result<Message, Misfit> {
        if !bytes.starts_with(&id.to_be_bytes()) {
            return Err(Misfit::OtherId);
        }
        // Looked at before anything is decoded: the decoder makes room for as many questions as a header
        // claims to have.
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Err(Misfit::Garbled) };
        if u16::from_be_bytes([header[4], header[5]]) > 1 {
            return Err(Misfit::OtherQuestion);
        }
        let message = Message::from_vec(bytes).map_err(|_| Misfit::Garbled)?;
        if message.metadata.message_type != MessageType::Response || message.metadata.op_code != OpCode::Query
        {
            return Err(Misfit::Garbled);
        }
        match message.queries.first() {
            Some(query)
                if query.name == self.name
                    && query.query_type == self.kind
                    && query.query_class == DNSClass::IN =>
            {
                Ok(message)
            }
            // A server that could not read the question cannot repeat it.
            None if is_puzzled(&message) => Ok(message),
            _ => Err(Misfit::OtherQuestion),
        }
    }
}

/// Why bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    /// The number that ties an answer to its question is another one.
    #[error("an answer with the wrong number")]
    OtherId,
    /// The question in it is another one.
    #[error("an answer to another question")]
    OtherQuestion,
    /// Not a DNS message, or not an answer.
    #[error("an answer that is no DNS message")]
    Garbled,
}

/// Whether the server did not understand the question, perhaps because of its extensions.
pub(super) fn is_puzzled(message: &Message) -> bool {
    matches!(
        message.metadata.response_code,
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS
    )
}

/// What the server says about its failure (RFC 8914), fit for a sentence.
pub(super) fn says(message: &Message) -> Option<String> {
    let options = message.edns.as_ref()?.options();
    let said: Vec<String> = options
        .get_all(EdnsCode::from(EXTENDED_ERROR))
        .into_iter()
        .take(3)
        .filter_map(|option| match option {
            EdnsOption::Unknown(EXTENDED_ERROR, data) => extended_error(data),
            _ => None,
        })
        .collect();
    (!said.is_empty()).then(|| printable(&said.join("; "), WORDS))
}

fn extended_error(data: &[u8]) -> Option<String> {
    let (code, text) = data.split_first_chunk::<2>()?;
    let code = u16::from_be_bytes(*code);
    let text = printable(String::from_utf8_lossy(text).trim_matches(['\0', ' ']), WORDS);
    let name = meaning(code).map_or_else(|| format!("extended error {code}"), str::to_owned);
    Some(if text.is_empty() { name } else { format!("{name}: {text}") })
}

/// The codes of RFC 8914 section 5.2 and of its registry that a resolver sends with a failure.
fn meaning(code: u16) -> Option<&'static str> {
    Some(match code {
        0 => "other error",
        1 => "unsupported DNSKEY algorithm",
        2 => "unsupported DS digest",
        3 => "stale answer",
        5 => "DNSSEC indeterminate",
        6 => "DNSSEC bogus",
        7 => "signature expired",
        8 => "signature not yet valid",
        9 => "DNSKEY missing",
        10 => "RRSIGs missing",
        11 => "no zone key bit set",
        12 => "NSEC missing",
        13 => "cached error",
        14 => "not ready",
        15 => "blocked",
        16 => "censored",
        17 => "filtered",
        18 => "prohibited",
        20 => "not authoritative",
        22 => "no reachable authority",
        23 => "network error",
        24 => "invalid data",
        25 => "signature expired before valid",
        27 => "unsupported NSEC3 iterations value",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn question() -> Question {
        Question::new(&name("www.example.net."), RecordType::A)
    }

    /// The question sent back as an answer.
    fn echo(id: u16) -> Message {
        Message::from_vec(&question().bytes(id, true)).unwrap().into_response()
    }

    #[test]
    fn a_question_says_what_it_wants() {
        for (question, recursive, unchecked, signatures) in [
            (question(), true, false, false),
            (question().unchecked(), true, true, false),
            (Question::direct(&name("a.b."), RecordType::CAA), false, false, false),
            (Question::direct(&name("a.b."), RecordType::DS).signed(), false, false, true),
        ] {
            let sent = Message::from_vec(&question.bytes(7, true)).unwrap();
            assert_eq!(sent.metadata.id, 7);
            assert_eq!(sent.metadata.recursion_desired, recursive);
            assert_eq!(sent.metadata.checking_disabled, unchecked);
            let edns = sent.edns.as_ref().unwrap();
            assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (PAYLOAD, signatures));
            assert_eq!(sent.queries, [Query::query(question.name.clone(), question.kind)]);
            assert!(Message::from_vec(&question.bytes(7, false)).unwrap().edns.is_none());
        }
    }

    #[test]
    fn only_the_answer_to_the_question_is_one() {
        let fits = |message: &Message| question().answer(7, &message.to_vec().unwrap());
        assert!(fits(&echo(7)).is_ok());
        assert_eq!(fits(&echo(8)), Err(Misfit::OtherId));
        let mut shouting = echo(7);
        shouting.queries[0].name = name("WWW.EXAMPLE.NET.");
        assert!(fits(&shouting).is_ok());
        for change in [
            (|m: &mut Message| m.queries[0].name = name("www.example.org.")) as fn(&mut Message),
            |m| m.queries[0].query_type = RecordType::AAAA,
            |m| m.queries[0].query_class = DNSClass::CH,
            |m| m.queries.clear(),
            |m| m.queries.push(m.queries[0].clone()),
        ] {
            let mut other = echo(7);
            change(&mut other);
            assert_eq!(fits(&other), Err(Misfit::OtherQuestion), "{other:?}");
        }
        let mut puzzled = echo(7);
        puzzled.queries.clear();
        puzzled.metadata.response_code = ResponseCode::FormErr;
        assert!(fits(&puzzled).is_ok());
        assert_eq!(question().answer(7, &question().bytes(7, true)), Err(Misfit::Garbled), "a question");
        assert_eq!(question().answer(7, b""), Err(Misfit::OtherId));
        assert_eq!(question().answer(7, b"\0\x07"), Err(Misfit::Garbled));
        let cut = &echo(7).to_vec().unwrap()[..20];
        assert_eq!(question().answer(7, cut), Err(Misfit::Garbled));
    }

    #[test]
    fn a_servers_own_words() {
        let with = |options: &[&[u8]]| {
            let mut message = echo(7);
            let edns = message.edns.as_mut().unwrap();
            for option in options {
                edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, option.to_vec()));
            }
            says(&Message::from_vec(&message.to_vec().unwrap()).unwrap())
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[b"\0"]), None);
        assert_eq!(with(&[b"\0\x07"]).unwrap(), "signature expired");
        assert_eq!(
            with(&[b"\0\x09no key for example.net\0", b"\0\x16"]).unwrap(),
            "DNSKEY missing: no key for example.net; no reachable authority"
        );
        assert_eq!(with(&[b"\x99\x99\x1b[2Jx\xff"]).unwrap(), "extended error 39321:  [2Jx\u{fffd}");
        let long = [&b"\0\0"[..], &[b'a'; 900]].concat();
        assert!(with(&[&long]).unwrap().chars().count() <= WORDS + 1);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut bytes = bytes;
            if bytes.len() > 6 {
                bytes[..6].copy_from_slice(&[0, 7, 0x80, 0, 0, 1]);
            }
            if let Ok(message) = question().answer(7, &bytes) {
                let _ = says(&message);
            }
        }

        #[test]
        fn no_change_to_an_answer_panics(at in 2_usize..40, byte in proptest::num::u8::ANY) {
            let mut bytes = echo(7).to_vec().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = question().answer(7, &bytes);
        }
    }
}
