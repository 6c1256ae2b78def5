//! What is wrong with a zone's signatures, as far as it shows without checking any (RFC 4034, RFC 4035
//! section 5). Decisions alone.
//!
//! Times are read by this machine's clock, and only where it finds the signature of the zone above to be
//! current: that one is made anew within days, so a clock that is wrong by more does not pass.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::preflight::evidence::Flaw;

/// A DNSKEY that signs (RFC 4034 section 2.1.1).
const ZONE_KEY: u16 = 0x0100;
/// Aliases of all names below one (RFC 6672).
const DNAME: RecordType = RecordType::Unknown(39);

/// A zone's answers, from its own servers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    /// The zone.
    pub(super) zone: &'a Name,
    /// The name in it that was asked about.
    pub(super) name: &'a Name,
    /// The records that were asked for.
    pub(super) kind: RecordType,
    /// What the servers of the zone above say of the zone's DS.
    pub(super) above: &'a Message,
    /// What the zone's own servers say of its DNSKEY.
    pub(super) keys: &'a Message,
    /// What they say of the records.
    pub(super) answer: &'a Message,
}

/// What shows; none where nothing does, and for a zone that the one above does not announce as signed.
pub(super) fn flaw(signed: &Signed<'_>, now: SystemTime) -> Option<Flaw> {
    let now = u32::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs() % (1 << 32)).ok()?;
    let announced: Vec<(u16, u8)> =
        data(&signed.above.answers, signed.zone, RecordType::DS).filter_map(announced).collect();
    if announced.is_empty() || faulty(&signed.above.answers, signed.zone, RecordType::DS, now).is_some() {
        return None;
    }
    let keys = data(&signed.keys.answers, signed.zone, RecordType::DNSKEY);
    let keys: Vec<(u16, u8)> = keys.filter_map(key).collect();
    if keys.is_empty() {
        return Some(Flaw::Unsigned);
    }
    if !keys.iter().any(|key| announced.contains(key)) {
        return Some(Flaw::OtherKeys);
    }
    faulty(&signed.keys.answers, signed.zone, RecordType::DNSKEY, now).or_else(|| of_answer(signed, now))
}

/// The records themselves, an alias in their place, or the start of the zone where there are none.
fn of_answer(signed: &Signed<'_>, now: u32) -> Option<Flaw> {
    let is_alias_of_all = |record: &Record| record.record_type() == DNAME;
    if signed.answer.answers.iter().any(is_alias_of_all) {
        // The alias that a server makes of it has no signature (RFC 6672 section 5.3.1).
        return None;
    }
    let names_a_zone = |record: &&Record| matches!(record.record_type(), RecordType::SOA | RecordType::NS);
    if signed.answer.authorities.iter().filter(names_a_zone).any(|record| record.name != *signed.zone) {
        // The server has a zone below as well, which may be unsigned by right.
        return None;
    }
    let has = |kind| data(&signed.answer.answers, signed.name, kind).next().is_some();
    for kind in [signed.kind, RecordType::CNAME] {
        if has(kind) {
            return faulty(&signed.answer.answers, signed.name, kind, now);
        }
    }
    data(&signed.answer.authorities, signed.zone, RecordType::SOA).next()?;
    faulty(&signed.answer.authorities, signed.zone, RecordType::SOA, now)
}

/// Why none of the signatures over records that are there counts at `now`, if none does.
fn faulty(section: &[Record], owner: &Name, kind: RecordType, now: u32) -> Option<Flaw> {
    let times = times(section, owner, kind);
    let is_current = |t: &Times| ahead(t.inception, now) <= 0 && ahead(t.expiration, now) >= 0;
    if times.iter().any(is_current) {
        return None;
    }
    let at = |ahead: i32| {
        let now = UNIX_EPOCH + Duration::from_secs(now.into());
        let distance = Duration::from_secs(ahead.unsigned_abs().into());
        if ahead < 0 { now - distance } else { now + distance }
    };
    let next = times.iter().map(|t| ahead(t.inception, now)).filter(|ahead| *ahead > 0).min();
    let last = times.iter().map(|t| ahead(t.expiration, now)).max();
    Some(match (next, last) {
        (Some(next), _) => Flaw::NotYet(at(next)),
        (None, Some(last)) => Flaw::Expired(at(last)),
        (None, None) => Flaw::Unsigned,
    })
}

/// How far a moment lies ahead, in seconds: the numbers go round (RFC 4034 section 3.1.5, RFC 1982).
fn ahead(moment: u32, now: u32) -> i32 {
    moment.wrapping_sub(now).cast_signed()
}

/// From when to when a signature counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    inception: u32,
    expiration: u32,
}

/// The times of the signatures over an owner's records of a type (RFC 4034 section 3.1).
fn times(section: &[Record], owner: &Name, kind: RecordType) -> Vec<Times> {
    let of = |data: &[u8]| {
        let (covered, rest) = data.split_first_chunk::<2>()?;
        let (expiration, rest) = rest.get(6..)?.split_first_chunk::<4>()?;
        let inception = rest.first_chunk::<4>()?;
        let times =
            Times { inception: u32::from_be_bytes(*inception), expiration: u32::from_be_bytes(*expiration) };
        (u16::from_be_bytes(*covered) == u16::from(kind)).then_some(times)
    };
    data(section, owner, RecordType::RRSIG).filter_map(bytes).filter_map(of).collect()
}

/// The tag and the algorithm of a key that the zone above announces (RFC 4034 section 5.1).
fn announced(data: &RData) -> Option<(u16, u8)> {
    let (tag, rest) = bytes(data)?.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*tag), *rest.first()?))
}

/// The tag and the algorithm of a zone's key (RFC 4034 section 2.1 and appendix B).
fn key(data: &RData) -> Option<(u16, u8)> {
    let data = bytes(data)?;
    let (head, _) = data.split_first_chunk::<4>()?;
    let is_zones = u16::from_be_bytes([head[0], head[1]]) & ZONE_KEY != 0;
    let sum: u32 = data
        .iter()
        .enumerate()
        .map(|(at, byte)| if at % 2 == 0 { u32::from(*byte) << 8 } else { u32::from(*byte) })
        .fold(0, u32::wrapping_add);
    let tag = sum.wrapping_add(sum >> 16) & 0xffff;
    is_zones.then_some((u16::try_from(tag).ok()?, head[3]))
}

fn data<'m>(
    section: &'m [Record],
    owner: &Name,
    kind: RecordType,
) -> impl Iterator<Item = &'m RData> + use<'m> {
    let owner = owner.clone();
    let is_one = move |r: &&Record| r.dns_class == DNSClass::IN && r.name == owner && r.record_type() == kind;
    section.iter().filter(is_one).map(|record| &record.data)
}

/// The DNS library leaves the types of DNSSEC as they are.
fn bytes(data: &RData) -> Option<&[u8]> {
    match data {
        RData::Unknown { rdata, .. } => Some(&rdata.anything),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{OpCode, ResponseCode};
    use hickory_proto::rr::rdata::{A, CNAME, NS, NULL, SOA};
    use proptest::prelude::*;

    use super::*;

    const NOW: u32 = 1_790_000_000;
    const DAY: u32 = 86_400;
    /// A key of RFC 4034's form, and its tag.
    const KEY: [u8; 8] = [1, 1, 3, 13, 0xaa, 0xbb, 0xcc, 0xdd];

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW.into())
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, code: RecordType, bytes: &[u8]) -> Record {
        Record::from_rdata(name(owner), 60, RData::Unknown { code, rdata: NULL::with(bytes.to_vec()) })
    }

    fn signature(owner: &str, of: RecordType, inception: u32, expiration: u32) -> Record {
        let mut bytes = u16::from(of).to_be_bytes().to_vec();
        bytes.extend([13, 2, 0, 0, 0, 60]);
        bytes.extend(expiration.to_be_bytes());
        bytes.extend(inception.to_be_bytes());
        bytes.extend([0, 1, 0, 7, 7]);
        record(owner, RecordType::RRSIG, &bytes)
    }

    fn current(owner: &str, of: RecordType) -> Record {
        signature(owner, of, NOW - DAY, NOW + DAY)
    }

    fn message(answers: Vec<Record>, authorities: Vec<Record>) -> Message {
        let mut message = Message::error_msg(1, OpCode::Query, ResponseCode::NoError);
        message.answers = answers;
        message.authorities = authorities;
        message
    }

    fn ds() -> Record {
        let (tag, algorithm) = key(&record("test.", RecordType::DNSKEY, &KEY).data).unwrap();
        record("test.", RecordType::DS, &[&tag.to_be_bytes()[..], &[algorithm, 2, 9, 9]].concat())
    }

    fn dnskey() -> Record {
        record("test.", RecordType::DNSKEY, &KEY)
    }

    fn a() -> Record {
        Record::from_rdata(name("w.test."), 60, RData::A(A([192, 0, 2, 1].into())))
    }

    fn cname() -> Record {
        Record::from_rdata(name("w.test."), 60, RData::CNAME(CNAME(name("x.example."))))
    }

    fn soa() -> Record {
        let data = SOA::new(name("ns.test."), name("root.test."), 1, 60, 60, 60, 60);
        Record::from_rdata(name("test."), 60, RData::SOA(data))
    }

    fn seen(above: Vec<Record>, keys: Vec<Record>, answer: Message, now: SystemTime) -> Option<Flaw> {
        let (zone, name) = (name("test."), name("w.test."));
        let (above, keys) = (message(above, vec![]), message(keys, vec![]));
        let (kind, answer) = (RecordType::A, &answer);
        flaw(&Signed { zone: &zone, name: &name, kind, above: &above, keys: &keys, answer }, now)
    }

    #[test]
    fn what_shows_without_checking_a_signature() {
        use RecordType::{A, AAAA, CNAME, DNSKEY, DS, SOA};
        let above = || vec![ds(), current("test.", DS)];
        let keys = || vec![dnskey(), current("test.", DNSKEY)];
        let answer = |answers| message(answers, vec![]);
        let good = || answer(vec![a(), current("w.test.", A)]);
        let at = |seconds: u32| UNIX_EPOCH + Duration::from_secs(seconds.into());
        let old = |owner, kind| signature(owner, kind, NOW - 9 * DAY, NOW - DAY);
        let early = |owner, kind| signature(owner, kind, NOW + DAY, NOW + 9 * DAY);
        let expired = Some(Flaw::Expired(at(NOW - DAY)));
        let other = record("test.", DNSKEY, &[1, 1, 3, 13, 0xaa, 0xbb, 0xcc, 0xde]);
        let no_zone_key = record("test.", DNSKEY, &[0, 1, 3, 13, 0xaa, 0xbb, 0xcc, 0xdd]);
        let alias = record("test.", DNAME, b"\0");
        let below = Record::from_rdata(name("w.test."), 60, RData::NS(NS(name("ns.test."))));
        for (what, above, keys, answer, expected) in [
            ("nothing", above(), keys(), good(), None),
            ("ran out", above(), keys(), answer(vec![a(), old("w.test.", A)]), expired),
            (
                "not yet",
                above(),
                keys(),
                answer(vec![a(), early("w.test.", A)]),
                Some(Flaw::NotYet(at(NOW + DAY))),
            ),
            (
                "one of two counts",
                above(),
                keys(),
                answer(vec![a(), old("w.test.", A), current("w.test.", A)]),
                None,
            ),
            (
                "another type's",
                above(),
                keys(),
                answer(vec![a(), current("w.test.", AAAA)]),
                Some(Flaw::Unsigned),
            ),
            (
                "another name's",
                above(),
                keys(),
                answer(vec![a(), current("x.test.", A)]),
                Some(Flaw::Unsigned),
            ),
            ("the alias has one", above(), keys(), answer(vec![cname(), current("w.test.", CNAME)]), None),
            ("the alias' ran out", above(), keys(), answer(vec![cname(), old("w.test.", CNAME)]), expired),
            ("an alias of all names", above(), keys(), answer(vec![alias, cname()]), None),
            ("of a zone below", above(), keys(), message(vec![a()], vec![below]), None),
            ("no records", above(), keys(), message(vec![], vec![soa(), current("test.", SOA)]), None),
            (
                "no records, ran out",
                above(),
                keys(),
                message(vec![], vec![soa(), old("test.", SOA)]),
                expired,
            ),
            ("no records, nothing at all", above(), keys(), answer(vec![]), None),
            ("the keys' ran out", above(), vec![dnskey(), old("test.", DNSKEY)], good(), expired),
            ("unsigned keys", above(), vec![dnskey()], good(), Some(Flaw::Unsigned)),
            ("no keys", above(), vec![], good(), Some(Flaw::Unsigned)),
            ("no key of the zone's", above(), vec![no_zone_key], good(), Some(Flaw::Unsigned)),
            (
                "other keys",
                above(),
                vec![other.clone(), current("test.", DNSKEY)],
                good(),
                Some(Flaw::OtherKeys),
            ),
            ("another key beside it", above(), vec![other, dnskey(), current("test.", DNSKEY)], good(), None),
            // Nothing is known where the zone above is not heard, announces nothing, or shows that a clock is wrong.
            ("not announced", vec![], vec![], answer(vec![a()]), None),
            ("announced without a signature", vec![ds()], keys(), answer(vec![a()]), None),
            ("the zone above ran out", vec![ds(), old("test.", DS)], keys(), answer(vec![a()]), None),
            ("the zone above is ahead", vec![ds(), early("test.", DS)], keys(), answer(vec![a()]), None),
        ] {
            assert_eq!(seen(above, keys, answer, now()), expected, "{what}");
        }
    }

    #[test]
    fn a_key_has_the_tag_that_the_rfc_gives_it() {
        // RFC 4034 section 5.4, its example of a DS and the DNSKEY that it refers to.
        use base64::Engine;
        use base64::prelude::BASE64_STANDARD;
        let public = "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==";
        let key_bytes = [&[1, 0, 3, 5][..], &BASE64_STANDARD.decode(public).unwrap()].concat();
        assert_eq!(key(&record("dskey.example.com.", RecordType::DNSKEY, &key_bytes).data), Some((60485, 5)));
    }

    proptest! {
        #[test]
        fn a_wrong_clock_is_not_held_against_a_sound_zone(days in -4000i64..4000) {
            // What is sound now is signed for longer than what the zone above is.
            let long = |owner, of| signature(owner, of, NOW - 2 * DAY, NOW + 14 * DAY);
            let clock = UNIX_EPOCH + Duration::from_secs((i64::from(NOW) + days * i64::from(DAY)).unsigned_abs());
            let (above, keys) =
                (vec![ds(), current("test.", RecordType::DS)], vec![dnskey(), long("test.", RecordType::DNSKEY)]);
            let answer = message(vec![a(), long("w.test.", RecordType::A)], vec![]);
            prop_assert_eq!(seen(above, keys, answer, clock), None);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..40)) {
            let of = |kind| record("test.", kind, &bytes);
            let above = vec![ds(), current("test.", RecordType::DS), of(RecordType::DS), of(RecordType::RRSIG)];
            let keys = vec![of(RecordType::DNSKEY), of(RecordType::RRSIG), dnskey()];
            let answer = message(vec![a(), record("w.test.", RecordType::RRSIG, &bytes)], vec![]);
            let _ = seen(above, keys, answer, now());
        }
    }
}
