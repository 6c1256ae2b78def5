//! Session tickets (RFC 5077, RFC 8446 section 4.6.1) that other nodes, and this one after a restart, take as well:
//! they are sealed with keys out of a file that all nodes share.
//!
//! The file holds secrets as nginx and HAProxy have them. Of several the last is the next one: the one before it
//! seals, and all of them open. So a new secret that is put at the end is known everywhere before the first ticket
//! is sealed with it, in whatever order the nodes get the file.
//!
//! A sealed ticket is the key's id (16 bytes), a nonce (12), and under AES-256-GCM-SIV (RFC 8452) the time at which it
//! was given out (8, seconds since 1970) and the session. Nodes draw nonces at random and know nothing of each
//! other's; with that cipher two equal ones tell no more than whether two tickets are the same.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use base64::prelude::{BASE64_STANDARD, Engine};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::clock;
use crate::folder::read_file;

/// How long a ticket is good.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// How far the clock of the node that gave a ticket out may be ahead of this one's.
const SKEW: Duration = Duration::from_secs(300);

/// Bytes of a secret: those of today's `ssl_session_ticket_key` and `tls-ticket-keys`, and those of AES-128.
const SECRETS: [usize; 2] = [80, 48];

/// Of a file that grows at its end, so many of the last secrets are used.
const MAX_KEYS: usize = 16;

/// The largest file that is read, bytes.
const MAX_FILE: u64 = 64 * 1024;

const ID: usize = 16;
const TIME: usize = 8;
const TAG: usize = 16;

/// The largest ticket, bytes. Sessions here carry no client's certificate.
const MAX_TICKET: usize = 4096;

const REMEDY: &str = "`openssl rand 80` makes a key";

/// Why no keys could be read.
#[derive(Debug, thiserror::Error)]
pub enum TicketKeyError {
    /// The system refused.
    #[error("it cannot be read ({0}): name a file that wicketgate's user may read")]
    Unreadable(io::Error),
    /// Somebody else may read or change it.
    #[error(
        "its mode is {0:04o}, so that others get at secrets of every session: `chmod 0600` it, or 0640 with a group that may read it"
    )]
    TooOpen(u32),
    /// Nothing in it.
    #[error("it is empty; {REMEDY}")]
    Empty,
    /// Bytes that are not a number of keys.
    #[error("it has {0} bytes, and a key has 80 (or 48, and is alone then); {REMEDY}")]
    Length(usize),
    /// Text of another kind.
    #[error(
        "its line {0} is not base64; a file of text has a key in each line, as `openssl rand 80 | openssl base64 -A` writes it"
    )]
    NotBase64(usize),
    /// A line that is not a key.
    #[error(
        "its line {line} holds {bytes} bytes, and a key has 80 or 48; `openssl rand -base64` breaks a key into two lines, `openssl rand 80 | openssl base64 -A` does not"
    )]
    LineLength {
        /// Counted from 1.
        line: usize,
        /// Once decoded.
        bytes: usize,
    },
    /// A key that was not made by chance.
    #[error("all bytes of a key in it are the same, so anybody could guess it; {REMEDY}")]
    NotRandom,
    /// The cryptographic library failed.
    #[error("the keys cannot be derived; this is a bug, please report it")]
    Derivation,
}

/// The keys of one state of the file.
pub struct TicketKeys {
    keys: Vec<TicketKey>,
    /// Which of them seals.
    sealing: usize,
}

struct TicketKey {
    id: [u8; ID],
    cipher: LessSafeKey,
}

impl TicketKeys {
    /// Reads a file that nobody else may read or change.
    ///
    /// # Errors
    /// [`TicketKeyError`]
    pub fn read(file: &Path) -> Result<Self, TicketKeyError> {
        let mode = std::fs::metadata(file).map_err(TicketKeyError::Unreadable)?.permissions().mode() & 0o7777;
        let bytes = Zeroizing::new(read_file(file, MAX_FILE).map_err(TicketKeyError::Unreadable)?);
        let keys = Self::parse(&bytes)?;
        if mode & 0o027 != 0 {
            return Err(TicketKeyError::TooOpen(mode));
        }
        Ok(keys)
    }

    /// The keys in a file's content: secrets of 80 bytes one after the other, or one of 48; or text with one of either
    /// kind, in base64, in each line.
    ///
    /// # Errors
    /// [`TicketKeyError`]
    pub fn parse(content: &[u8]) -> Result<Self, TicketKeyError> {
        let secrets = match std::str::from_utf8(content) {
            Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_ascii_whitespace()) => lines(text)?,
            _ if SECRETS.contains(&content.len()) => vec![Zeroizing::new(content.to_vec())],
            _ if content.len().is_multiple_of(SECRETS[0]) => {
                content.chunks(SECRETS[0]).map(|secret| Zeroizing::new(secret.to_vec())).collect()
            }
            _ => return Err(TicketKeyError::Length(content.len())),
        };
        if secrets.is_empty() {
            return Err(TicketKeyError::Empty);
        }
        let last = &secrets[secrets.len().saturating_sub(MAX_KEYS)..];
        let keys = last.iter().map(|secret| TicketKey::derive(secret)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { sealing: keys.len().saturating_sub(2), keys })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// By what the key that seals is told from others, on every node alike: the beginning of its id in hex, which every
    /// ticket shows.
    pub fn sealing(&self) -> String {
        self.keys[self.sealing].shown()
    }

    /// Whether they are the same in the same order.
    pub fn is_same(&self, other: &Self) -> bool {
        self.keys.iter().map(|key| key.id).eq(other.keys.iter().map(|key| key.id))
    }

    /// A ticket that holds `session`, given out at `now`; `None` if it is too large for one.
    fn seal(&self, session: &[u8], now: SystemTime, nonce: [u8; NONCE_LEN]) -> Option<Vec<u8>> {
        let key = &self.keys[self.sealing];
        let length = ID + NONCE_LEN + TIME + session.len() + TAG;
        if length > MAX_TICKET {
            return None;
        }
        let mut ticket = Vec::with_capacity(length);
        ticket.extend(key.id);
        ticket.extend(nonce);
        ticket.extend(seconds(now).to_be_bytes());
        ticket.extend(session);
        let sealed = &mut ticket[ID + NONCE_LEN..];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.cipher.seal_in_place_separate_tag(nonce, Aad::from(key.id), sealed).ok()?;
        ticket.extend(tag.as_ref());
        Some(ticket)
    }

    /// The session in a ticket, which anybody may have made up, at `now`; `None` unless it was sealed with one of these
    /// keys and is not too old.
    fn open(&self, ticket: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (id, rest) = ticket.split_first_chunk::<ID>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.id == *id)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.cipher.open_in_place(nonce, Aad::from(key.id), &mut sealed).ok()?;
        let (given, session) = opened.split_first_chunk::<TIME>()?;
        is_good(u64::from_be_bytes(*given), seconds(now)).then(|| session.to_vec())
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(TicketKey::shown)).finish()
    }
}

impl TicketKey {
    /// By HKDF (RFC 5869), so that whatever else a secret is used for tells nothing of these keys.
    fn derive(secret: &[u8]) -> Result<Self, TicketKeyError> {
        if secret.iter().all(|byte| *byte == secret[0]) {
            return Err(TicketKeyError::NotRandom);
        }
        let root = Salt::new(HKDF_SHA256, b"wicketgate session tickets 1").extract(secret);
        let mut id = [0; ID];
        expand(&root, b"id", &mut id)?;
        let mut key = Zeroizing::new([0; 32]);
        expand(&root, b"AES-256-GCM-SIV", &mut *key)?;
        let cipher = UnboundKey::new(&AES_256_GCM_SIV, &*key).map_err(|_| TicketKeyError::Derivation)?;
        Ok(Self { id, cipher: LessSafeKey::new(cipher) })
    }

    fn shown(&self) -> String {
        self.id[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn expand(root: &Prk, purpose: &[u8], out: &mut [u8]) -> Result<(), TicketKeyError> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let purpose = [purpose];
    let expanded = root.expand(&purpose, Length(out.len()));
    expanded.and_then(|expanded| expanded.fill(out)).map_err(|_| TicketKeyError::Derivation)
}

fn lines(text: &str) -> Result<Vec<Zeroizing<Vec<u8>>>, TicketKeyError> {
    let filled = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    filled
        .map(|(n, line)| {
            let secret = BASE64_STANDARD.decode(line).map_err(|_| TicketKeyError::NotBase64(n + 1))?;
            let secret = Zeroizing::new(secret);
            match SECRETS.contains(&secret.len()) {
                true => Ok(secret),
                false => Err(TicketKeyError::LineLength { line: n + 1, bytes: secret.len() }),
            }
        })
        .collect()
}

/// Whether a ticket that was given out then is good now, both in seconds since 1970.
fn is_good(given: u64, now: u64) -> bool {
    match now.checked_sub(given) {
        Some(age) => age <= LIFETIME.as_secs(),
        None => given - now <= SKEW.as_secs(),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What makes and takes tickets: with the file's keys where there is one, else with keys of this process alone, which
/// change every six hours. Tickets of the latter are taken in any case, so that a file that comes later ends no session.
#[derive(Debug)]
pub(crate) struct Tickets {
    own: Arc<dyn ProducesTickets>,
    shared: ArcSwapOption<TicketKeys>,
}

impl Tickets {
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        Ok(Self { own: Ticketer::new()?, shared: ArcSwapOption::empty() })
    }

    /// Uses these keys from now on; `None`: those of this process alone.
    pub(crate) fn share(&self, keys: Option<Arc<TicketKeys>>) {
        self.shared.store(keys);
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(0)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let Some(keys) = &*self.shared.load() else { return self.own.encrypt(plain) };
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        keys.seal(plain, clock::now(), nonce)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let shared = self.shared.load();
        let opened = shared.as_ref().and_then(|keys| keys.open(cipher, clock::now()));
        opened.or_else(|| self.own.decrypt(cipher))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn secret(n: u8) -> Vec<u8> {
        (0..80).map(|place| place ^ n.wrapping_mul(37)).map(|byte| byte | 0x80).collect()
    }

    fn keys(secrets: &[u8]) -> TicketKeys {
        TicketKeys::parse(&secrets.iter().flat_map(|n| secret(*n)).collect::<Vec<_>>()).unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn the_last_but_one_seals_and_all_open() {
        let sealed = |keys: &TicketKeys| keys.seal(b"session", at(NOW), [7; NONCE_LEN]).unwrap();
        for (file, by, opened_by) in [
            (&[1][..], 1, &[&[1][..], &[1, 2], &[0, 1, 2]][..]),
            (&[1, 2], 1, &[&[1], &[1, 2], &[9, 1, 2, 3]]),
            (&[1, 2, 3], 2, &[&[2], &[3, 2, 1]]),
        ] {
            let ticket = sealed(&keys(file));
            assert_eq!(ticket[..ID], keys(&[by]).keys[0].id, "{file:?}");
            for others in opened_by {
                assert_eq!(
                    keys(others).open(&ticket, at(NOW)).as_deref(),
                    Some(&b"session"[..]),
                    "{others:?}"
                );
            }
            assert_eq!(keys(&[8, 9]).open(&ticket, at(NOW)), None, "sealed with a key that is not here");
        }
        // A rotation, node by node: each of its files opens what any of them seals.
        let files = [&[1, 2, 3][..], &[2, 3, 4], &[3, 4, 5]].map(keys);
        for pair in files.windows(2) {
            for (here, there) in [(0, 1), (1, 0)] {
                assert!(pair[there].open(&sealed(&pair[here]), at(NOW)).is_some());
            }
        }
    }

    #[test]
    fn only_for_their_time() {
        let keys = keys(&[1]);
        let ticket = keys.seal(b"session", at(NOW), [7; NONCE_LEN]).unwrap();
        let (lifetime, skew) = (LIFETIME.as_secs(), SKEW.as_secs());
        for (now, expected) in [
            (NOW, true),
            (NOW + lifetime, true),
            (NOW + lifetime + 1, false),
            (NOW + 100 * lifetime, false),
            (NOW - skew, true),
            (NOW - skew - 1, false),
            (0, false),
        ] {
            assert_eq!(keys.open(&ticket, at(now)).is_some(), expected, "{now}");
        }
    }

    #[test]
    fn files_as_others_write_them() {
        let line = |secret: &[u8]| BASE64_STANDARD.encode(secret);
        let raw = [secret(1), secret(2), secret(3)].concat();
        let text = format!("{}\n{}\r\n\n  {}", line(&secret(1)), line(&secret(2)), line(&secret(3)));
        assert!(TicketKeys::parse(&raw).unwrap().is_same(&TicketKeys::parse(text.as_bytes()).unwrap()));
        for (content, count) in [(&secret(1)[..48], 1), (&secret(1), 1), (&raw[..160], 2), (&raw, 3)] {
            assert_eq!(TicketKeys::parse(content).unwrap().count(), count);
        }
        // Of a file that is only ever added to, the end counts.
        let long = (0..40).flat_map(secret).collect::<Vec<_>>();
        let (long, end) = (TicketKeys::parse(&long).unwrap(), (24..40).flat_map(secret).collect::<Vec<_>>());
        assert!(long.is_same(&TicketKeys::parse(&end).unwrap()));
        let ids: BTreeSet<_> = long.keys.iter().map(|key| key.id).collect();
        assert_eq!(ids.len(), MAX_KEYS);
        assert_eq!(long.sealing(), keys(&[38]).sealing());
    }

    #[test]
    fn what_is_no_key_file_is_told() {
        let broken = BASE64_STANDARD.encode(secret(1));
        let (first, second) = broken.split_at(64);
        let broken = format!("{first}\n{second}\n");
        let zeros = [0; 80];
        for (content, says) in [
            (&b""[..], "it is empty"),
            (b"\n \n", "it is empty"),
            (&secret(1)[..79], "it has 79 bytes"),
            (&[secret(1), secret(2)].concat()[..96], "it has 96 bytes"),
            (b"-----BEGIN PRIVATE KEY-----\n", "its line 1 is not base64"),
            (broken.as_bytes(), "its line 2 holds 32 bytes"),
            (&zeros, "all bytes of a key in it are the same"),
            (BASE64_STANDARD.encode(zeros).as_bytes(), "all bytes of a key in it are the same"),
        ] {
            let told = TicketKeys::parse(content).unwrap_err().to_string();
            assert!(told.starts_with(says), "{told}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let keys = keys(&[1, 2]);
        let shown = format!("{keys:?}");
        assert_eq!(shown, format!("[\"{}\", \"{}\"]", keys.keys[0].shown(), keys.keys[1].shown()));
    }

    #[test]
    fn what_this_process_has_sealed_stays_good_when_a_file_comes_and_goes() {
        let tickets = Tickets::new().unwrap();
        let own = tickets.encrypt(b"own").unwrap();
        tickets.share(Some(Arc::new(keys(&[1]))));
        let shared = tickets.encrypt(b"shared").unwrap();
        assert_eq!(shared[..ID], keys(&[1]).keys[0].id);
        assert_eq!(tickets.decrypt(&own).as_deref(), Some(&b"own"[..]));
        assert_eq!(tickets.decrypt(&shared).as_deref(), Some(&b"shared"[..]));
        tickets.share(None);
        assert_eq!(tickets.decrypt(&own).as_deref(), Some(&b"own"[..]));
        assert_eq!(tickets.decrypt(&shared), None);
    }

    #[test]
    fn a_session_that_is_too_large_has_no_ticket() {
        let keys = keys(&[1]);
        let room = MAX_TICKET - ID - NONCE_LEN - TIME - TAG;
        let ticket = keys.seal(&vec![1; room], at(NOW), [0; NONCE_LEN]).unwrap();
        assert_eq!(ticket.len(), MAX_TICKET);
        assert!(keys.open(&ticket, at(NOW)).is_some());
        assert_eq!(keys.seal(&vec![1; room + 1], at(NOW), [0; NONCE_LEN]), None);
    }

    proptest! {
        #[test]
        fn what_is_sealed_comes_back_and_what_was_touched_does_not(
            session in proptest::collection::vec(any::<u8>(), 0..300),
            nonce: [u8; NONCE_LEN],
            place: proptest::sample::Index,
            flip in 1..=255_u8,
        ) {
            let keys = keys(&[1, 2, 3]);
            let mut ticket = keys.seal(&session, at(NOW), nonce).unwrap();
            prop_assert_eq!(keys.open(&ticket, at(NOW)), Some(session));
            let cut = place.index(ticket.len());
            prop_assert_eq!(keys.open(&ticket[..cut], at(NOW)), None);
            ticket[cut] ^= flip;
            prop_assert_eq!(keys.open(&ticket, at(NOW)), None);
        }

        #[test]
        fn noise_opens_nothing(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let keys = keys(&[1]);
            prop_assert_eq!(keys.open(&noise, at(NOW)), None);
            // Even with the id of a key.
            let named = [&keys.keys[0].id[..], &noise].concat();
            prop_assert_eq!(keys.open(&named, at(NOW)), None);
            let _ = TicketKeys::parse(&noise);
        }
    }
}
