//! Whether a shown chain is complete: pure, with the time passed in.
//!
//! It is when every link up to a trusted root is shown: each certificate signed by one that is there, and
//! the last one by a root, which need not be. A private CA's root may be unknown here; then the chain is
//! complete when everything is shown that the CA delivered. What is there besides, or in another order than
//! RFC 8446 section 4.4.2 wants it, is worth a warning: clients put up with it, most of them.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use super::leaf::day;
use crate::words::printable;

/// Longest name in a sentence, characters.
const LONGEST: usize = 120;
/// Certificates of a shown chain that are looked at; the rest is told as superfluous.
const MOST: usize = 16;

/// A root: who it is, and the key that it signs with, both as DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The subject's name.
    pub subject: Vec<u8>,
    /// The subjectPublicKeyInfo.
    pub key: Vec<u8>,
}

/// Where a chain leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// To a root that is known here.
    Trusted,
    /// To none that is known here; but everything is shown that the CA delivered.
    Private {
        /// Who signed the last one.
        issuer: String,
    },
    /// To a root that is shown, but not known here.
    Untrusted {
        /// That root.
        root: String,
    },
    /// Nowhere: a link is missing, or the root is a stranger that was not sent.
    Missing {
        /// The certificate that its issuer is missing to.
        of: String,
        /// Who is missing.
        issuer: String,
        /// The CA delivered the missing one, so it is known to be a link.
        is_known: bool,
    },
    /// A certificate in it cannot be read.
    Unreadable {
        /// Which, from 1.
        position: usize,
        /// Why not.
        reason: String,
    },
}

/// What is to be said of a shown chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it leads.
    pub verdict: Verdict,
    /// What clients put up with, one sentence each.
    pub warnings: Vec<String>,
}

impl Chain {
    /// Whether clients that trust its root can follow it.
    pub fn is_complete(&self) -> bool {
        matches!(self.verdict, Verdict::Trusted | Verdict::Private { .. } | Verdict::Untrusted { .. })
    }
}

/// Judges the chain that was `shown`, leaf first, at the moment `now`; `stored` is what the CA delivered,
/// empty where it is not known.
pub fn judge(
    shown: &[CertificateDer<'_>],
    stored: &[CertificateDer<'_>],
    anchors: &[Anchor],
    now: SystemTime,
) -> Chain {
    let looked_at = &shown[..shown.len().min(MOST)];
    let mut parsed = Vec::with_capacity(looked_at.len());
    for (i, der) in looked_at.iter().enumerate() {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => parsed.push(certificate),
            Err(e) => {
                let verdict = Verdict::Unreadable { position: i + 1, reason: e.to_string() };
                return Chain { verdict, warnings: Vec::new() };
            }
        }
    }
    let Some(leaf) = parsed.first() else {
        let verdict = Verdict::Unreadable { position: 1, reason: "there is none".to_owned() };
        return Chain { verdict, warnings: Vec::new() };
    };

    let (path, end) = climb(leaf, &parsed, anchors);
    let last = &parsed[*path.last().unwrap_or(&0)];
    let verdict = match end {
        End::Anchor => Verdict::Trusted,
        End::Stranger | End::Nobody if is_as_delivered(shown, stored) => {
            Verdict::Private { issuer: name(last.issuer()) }
        }
        End::Stranger => Verdict::Untrusted { root: name(last.subject()) },
        End::Nobody => Verdict::Missing {
            of: name(last.subject()),
            issuer: name(last.issuer()),
            is_known: stored.iter().any(|der| is_of(der, last.issuer().as_raw())),
        },
    };
    let mut warnings = Vec::new();
    let is_delivered = |i: usize| stored.contains(&shown[i]);
    for i in (0..parsed.len()).filter(|i| !path.contains(i) && !is_delivered(*i)) {
        let (subject, place) = (name(parsed[i].subject()), i + 1);
        warnings.push(if is_self_signed(&parsed[i]) {
            format!("the root `{subject}` is sent too (certificate {place}), which no client needs")
        } else {
            format!("certificate {place} (`{subject}`) is superfluous: no link of the chain needs it")
        });
    }
    if shown.len() > MOST {
        warnings.push(format!("{} certificates are sent, of which {MOST} were looked at", shown.len()));
    }
    if !path.is_sorted() {
        warnings.push(
            "the chain is out of order, which some clients refuse: each certificate should be signed by the next one"
                .to_owned(),
        );
    }
    for i in path.iter().copied().filter(|i| *i > 0) {
        let (subject, ended) = (name(parsed[i].subject()), end_of(&parsed[i]));
        if is_self_signed(&parsed[i]) && !is_delivered(i) && path.len() > 1 {
            warnings.push(format!(
                "the root `{subject}` is sent too (certificate {}), which no client needs",
                i + 1
            ));
        }
        if ended <= now {
            warnings.push(format!(
                "the intermediate certificate `{subject}` expired on {}: clients that know no other way to the root refuse it",
                day(ended)
            ));
        }
    }
    Chain { verdict, warnings }
}

/// Everything is shown that the CA delivered, but for a root, which need not be.
fn is_as_delivered(shown: &[CertificateDer<'_>], stored: &[CertificateDer<'_>]) -> bool {
    let is_root = |der| X509Certificate::from_der(der).is_ok_and(|(_, c)| is_self_signed(&c));
    let Some((leaf, issuers)) = stored.split_first() else { return false };
    shown.contains(leaf) && issuers.iter().all(|der| shown.contains(der) || is_root(der))
}

/// Where a climb from the leaf ends.
enum End {
    /// At a root that is known here, or at one that such a root has signed.
    Anchor,
    /// At a root that is not known here.
    Stranger,
    /// Where nobody is there who signed the last one.
    Nobody,
}

/// From signed to signer, each by its place in `shown`, the next one first.
fn climb(leaf: &X509Certificate<'_>, shown: &[X509Certificate<'_>], anchors: &[Anchor]) -> (Vec<usize>, End) {
    let (mut path, mut current) = (vec![0], leaf);
    loop {
        let is_root = |anchor: &Anchor| {
            anchor.subject == current.subject().as_raw() && anchor.key == current.public_key().raw
        };
        if anchors.iter().any(|anchor| is_root(anchor) || signed(anchor, current)) {
            return (path, End::Anchor);
        }
        if is_self_signed(current) {
            return (path, End::Stranger);
        }
        let here = path[path.len() - 1];
        let onwards = (here + 1..shown.len()).chain(0..here);
        let mut signers = onwards.filter(|i| {
            let signer = &shown[*i];
            !path.contains(i)
                && signer.subject().as_raw() == current.issuer().as_raw()
                && current.verify_signature(Some(signer.public_key())).is_ok()
        });
        let Some(next) = signers.next() else { return (path, End::Nobody) };
        path.push(next);
        current = &shown[next];
    }
}

fn signed(anchor: &Anchor, certificate: &X509Certificate<'_>) -> bool {
    anchor.subject == certificate.issuer().as_raw()
        && SubjectPublicKeyInfo::from_der(&anchor.key)
            .is_ok_and(|(_, key)| certificate.verify_signature(Some(&key)).is_ok())
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
        && certificate.verify_signature(None).is_ok()
}

fn is_of(der: &CertificateDer<'_>, subject: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, c)| c.subject().as_raw() == subject)
}

fn name(name: &x509_parser::x509::X509Name<'_>) -> String {
    printable(&name.to_string(), LONGEST)
}

fn end_of(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}
