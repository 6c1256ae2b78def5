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

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm,
    };

    use super::*;

    type Der = CertificateDer<'static>;

    /// root → middle → inner → leaf, the root again signed by an older one, and a stranger's root.
    struct Made {
        leaf: Der,
        inner: Der,
        middle: Der,
        root: Der,
        cross: Der,
        stranger: Der,
        old_root: Der,
        expired: Der,
    }

    fn authority(name: &str, algorithm: &'static SignatureAlgorithm) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params, KeyPair::generate_for(algorithm).unwrap())
    }

    fn made() -> &'static Made {
        static MADE: OnceLock<Made> = OnceLock::new();
        MADE.get_or_init(|| {
            let signed = |name: &str, by: Option<&CertifiedIssuer<'static, KeyPair>>| {
                let algorithm = if name == "middle" {
                    &rcgen::PKCS_ECDSA_P384_SHA384
                } else {
                    &rcgen::PKCS_ECDSA_P256_SHA256
                };
                let (params, key) = authority(name, algorithm);
                match by {
                    Some(by) => CertifiedIssuer::signed_by(params, key, by).unwrap(),
                    None => CertifiedIssuer::self_signed(params, key).unwrap(),
                }
            };
            let (old_root, stranger) = (signed("old root", None), signed("root", None));
            let root = signed("root", None);
            let (params, _) = authority("root", &rcgen::PKCS_ECDSA_P256_SHA256);
            let cross = params.signed_by(root.key(), &old_root).unwrap();
            let middle = signed("middle", Some(&root));
            let inner = signed("inner", Some(&middle));
            let (mut params, _) = authority("inner", &rcgen::PKCS_ECDSA_P256_SHA256);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            let expired = params.signed_by(inner.key(), &middle).unwrap();
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["a.example".to_owned()]).unwrap();
            let leaf = params.signed_by(&key, &inner).unwrap();
            Made {
                leaf: leaf.der().clone(),
                inner: inner.der().clone(),
                middle: middle.der().clone(),
                root: root.der().clone(),
                cross: cross.der().clone(),
                stranger: stranger.der().clone(),
                old_root: old_root.der().clone(),
                expired: expired.der().clone(),
            }
        })
    }

    fn anchor(der: &Der) -> Anchor {
        let (_, root) = X509Certificate::from_der(der).unwrap();
        Anchor { subject: root.subject().as_raw().to_vec(), key: root.public_key().raw.to_vec() }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400)
    }

    fn judged(shown: &[&Der], stored: &[&Der], roots: &[&Der]) -> (Verdict, String) {
        let all = |list: &[&Der]| list.iter().map(|der| (*der).clone()).collect::<Vec<Der>>();
        let anchors: Vec<_> = roots.iter().map(|der| anchor(der)).collect();
        let chain = judge(&all(shown), &all(stored), &anchors, now());
        (chain.verdict, chain.warnings.join(" | "))
    }

    #[test]
    fn complete_chains_and_what_is_put_up_with() {
        let m = made();
        let whole = [&m.leaf, &m.inner, &m.middle];
        let known = [&m.root];
        for (shown, stored, warning) in [
            (&whole[..], &whole[..], ""),
            (&whole, &[], ""),
            (
                &[&m.leaf, &m.inner, &m.middle, &m.root],
                &whole,
                "the root `CN=root` is sent too (certificate 4)",
            ),
            (&[&m.leaf, &m.middle, &m.inner], &whole, "out of order"),
            (
                &[&m.leaf, &m.inner, &m.stranger, &m.middle],
                &whole,
                "the root `CN=root` is sent too (certificate 3)",
            ),
            (&[&m.leaf, &m.inner, &m.middle, &m.leaf], &whole, ""),
            (&[&m.leaf, &m.inner, &m.middle, &m.cross], &whole, "certificate 4 (`CN=root`) is superfluous"),
            // What the CA delivers is as the CA wants it.
            (&[&m.leaf, &m.inner, &m.middle, &m.cross], &[&m.leaf, &m.inner, &m.middle, &m.cross], ""),
            (&[&m.leaf, &m.expired, &m.middle], &[], "`CN=inner` expired on 2020-01-01"),
        ] {
            let (verdict, warnings) = judged(shown, stored, &known);
            assert_eq!(verdict, Verdict::Trusted);
            match warning {
                "" => assert_eq!(warnings, ""),
                part => assert!(warnings.contains(part) && !warnings.contains(" | "), "{part}: {warnings}"),
            }
        }
        // An older root is reached by the way that was signed across.
        let (verdict, warnings) = judged(&[&m.leaf, &m.inner, &m.middle, &m.cross], &[], &[&m.old_root]);
        assert_eq!((verdict, warnings.as_str()), (Verdict::Trusted, ""));
        let many = vec![&m.leaf; 20];
        assert!(judged(&many, &[], &known).1.contains("20 certificates are sent"));
    }

    #[test]
    fn missing_links_are_named() {
        let m = made();
        let whole = [&m.leaf, &m.inner, &m.middle];
        let missing = |of: &str, issuer: &str, is_known| Verdict::Missing {
            of: of.to_owned(),
            issuer: issuer.to_owned(),
            is_known,
        };
        let leaf_name = judged(&[&m.leaf], &[], &[]).0;
        let Verdict::Missing { of: leaf, .. } = leaf_name else { panic!("{leaf_name:?}") };
        for (shown, stored, roots, verdict) in [
            (&[&m.leaf][..], &whole[..], &[&m.root][..], missing(&leaf, "CN=inner", true)),
            (&[&m.leaf], &[], &[&m.root], missing(&leaf, "CN=inner", false)),
            (&[&m.leaf, &m.middle], &whole, &[&m.root], missing(&leaf, "CN=inner", true)),
            (&[&m.leaf, &m.inner], &whole, &[&m.root], missing("CN=inner", "CN=middle", true)),
            (&whole, &[], &[], missing("CN=middle", "CN=root", false)),
            // A root of the same name is not the one who signed.
            (&whole, &[], &[&m.stranger], missing("CN=middle", "CN=root", false)),
        ] {
            assert_eq!(judged(shown, stored, roots).0, verdict);
        }
    }

    #[test]
    fn a_private_root_need_not_be_known() {
        let m = made();
        let whole = [&m.leaf, &m.inner, &m.middle];
        let delivered_with_root = [&m.leaf, &m.inner, &m.middle, &m.root];
        let private = Verdict::Private { issuer: "CN=root".to_owned() };
        assert_eq!(judged(&whole, &whole, &[]).0, private);
        assert_eq!(judged(&whole, &delivered_with_root, &[]).0, private);
        assert_eq!(judged(&delivered_with_root, &delivered_with_root, &[]).0, private);
        let untrusted = Verdict::Untrusted { root: "CN=root".to_owned() };
        assert_eq!(judged(&delivered_with_root, &[], &[]).0, untrusted);
        assert_eq!(judged(&[&m.root], &[], &[]).0, untrusted);
        let (verdict, _) = judged(&[&Der::from(vec![1, 2])], &[], &[]);
        assert!(matches!(verdict, Verdict::Unreadable { position: 1, .. }));
        assert!(matches!(judged(&[], &[], &[]).0, Verdict::Unreadable { .. }));
    }

    proptest! {
        /// Whatever else is sent, in whatever order: a chain is complete if and only if its links are there.
        #[test]
        fn links_count_and_nothing_else(
            others in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
            count in 0..6usize,
        ) {
            let m = made();
            let pool = [&m.inner, &m.middle, &m.root, &m.cross, &m.stranger, &m.old_root];
            let sent = &others[..count];
            let shown: Vec<_> = std::iter::once(&m.leaf).chain(sent.iter().map(|i| pool[*i])).collect();
            let (verdict, _) = judged(&shown, &[], &[&m.root]);
            let has_links = sent.contains(&0) && sent.contains(&1);
            prop_assert_eq!(verdict == Verdict::Trusted, has_links);
            prop_assert_eq!(matches!(verdict, Verdict::Missing { .. }), !has_links);
        }
    }
}
