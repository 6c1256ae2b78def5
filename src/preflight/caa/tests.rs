use proptest::prelude::*;

use super::*;

const ACCOUNT: &str = "https://ca.example/acct/7";

fn identities() -> Vec<String> {
    vec!["ca.example".into(), "old.ca.example".into()]
}

fn records(records: &[(u8, &str, &str)]) -> Vec<CaaRecord> {
    let record = |(flags, tag, value): &(u8, &str, &str)| CaaRecord {
        critical: flags & 128 != 0,
        tag: (*tag).into(),
        value: (*value).into(),
    };
    records.iter().map(record).collect()
}

fn forbidden(reason: Reason) -> Verdict {
    Verdict::Forbidden { reason }
}

fn others(named: &[&str]) -> Verdict {
    forbidden(Reason::OthersOnly { named: named.iter().map(|issuer| (*issuer).into()).collect() })
}

fn malformed(value: &str) -> Verdict {
    forbidden(Reason::Malformed { value: value.into() })
}

fn account_of(uri: &str) -> Verdict {
    forbidden(Reason::OtherAccount { uri: uri.into() })
}

fn methods(methods: &str) -> Verdict {
    forbidden(Reason::OtherMethods { methods: methods.into() })
}

fn critical(tag: &str) -> Verdict {
    forbidden(Reason::UnknownCritical { tag: tag.into() })
}

/// A CA with two names, an account, no wildcard.
#[test]
fn for_a_plain_name() {
    use Verdict::Allowed;
    let nobody = || forbidden(Reason::Nobody);
    let ours = "ca.example; accounturi=https://ca.example/acct/7";
    let other = "ca.example; accounturi=https://ca.example/acct/8";
    for (set, expected) in [
        (&[][..], Allowed),
        (&[(0, "issue", "ca.example")], Allowed),
        (&[(0, "issue", "old.ca.example")], Allowed),
        (&[(0, "ISSUE", "CA.Example")], Allowed),
        (&[(128, "issue", "ca.example")], Allowed),
        (&[(0, "issue", " \tca.example \t")], Allowed),
        (&[(0, "issue", "ca.example;")], Allowed),
        (&[(0, "issue", "ca.example; x=y; z=1")], Allowed),
        (&[(0, "issue", "other.example")], others(&["other.example"])),
        (&[(0, "issue", "Other.Example")], others(&["other.example"])),
        (&[(0, "issue", "sub.ca.example")], others(&["sub.ca.example"])),
        (&[(0, "issue", "example")], others(&["example"])),
        (&[(0, "issue", "other.example"), (0, "issue", "ca.example")], Allowed),
        (
            &[(0, "issue", "b.example"), (0, "issue", "a.example"), (0, "issue", "b.example")],
            others(&["b.example", "a.example"]),
        ),
        (&[(0, "issue", ";")], nobody()),
        (&[(0, "issue", "")], nobody()),
        (&[(0, "issue", " ; ")], nobody()),
        (&[(0, "issue", "; x=y")], nobody()),
        (&[(0, "issue", ";"), (0, "issue", "ca.example")], Allowed),
        (&[(0, "issue", ";"), (0, "issue", "other.example")], others(&["other.example"])),
        (&[(0, "iodef", "mailto:a@b.example")], Allowed),
        (&[(128, "iodef", "mailto:a@b.example")], Allowed),
        (&[(128, "issuemail", ";")], Allowed),
        (&[(0, "issuewild", ";")], Allowed),
        (&[(0, "issuewild", "other.example"), (0, "issue", "ca.example")], Allowed),
        (&[(0, "issuewild", "ca.example"), (0, "issue", ";")], nobody()),
        (&[(0, "novel", "x")], Allowed),
        (&[(128, "novel", "x")], critical("novel")),
        (&[(128, "novel", "x"), (0, "issue", "ca.example")], critical("novel")),
        (&[(0, "issue", "%%%%%")], malformed("%%%%%")),
        (&[(0, "issue", "ca.example.")], malformed("ca.example.")),
        (&[(0, "issue", "\"ca.example\"")], malformed("\"ca.example\"")),
        (&[(0, "issue", "ca.example; x")], malformed("ca.example; x")),
        (&[(0, "issue", "ca.example; x=y;")], malformed("ca.example; x=y;")),
        (&[(0, "issue", "%%%%%"), (0, "issue", "ca.example")], Allowed),
        (&[(0, "issue", "%"), (0, "issue", "other.example")], malformed("%")),
        (&[(0, "issue", ours)], Allowed),
        (&[(0, "issue", "ca.example; AccountURI = https://ca.example/acct/7")], Allowed),
        (&[(0, "issue", other)], account_of("https://ca.example/acct/8")),
        (&[(0, "issue", "ca.example; accounturi=")], account_of("")),
        (
            &[(
                0,
                "issue",
                "ca.example; accounturi=https://ca.example/acct/7; accounturi=https://ca.example/acct/7",
            )],
            account_of("https://ca.example/acct/7; https://ca.example/acct/7"),
        ),
        (&[(0, "issue", other), (0, "issue", ours)], Allowed),
        (&[(0, "issue", other), (0, "issue", "other.example")], account_of("https://ca.example/acct/8")),
        (&[(0, "issue", "other.example; accounturi=https://ca.example/acct/7")], others(&["other.example"])),
        (&[(0, "issue", "ca.example; validationmethods=http-01")], Allowed),
        (&[(0, "issue", "ca.example; validationmethods=dns-01,http-01")], Allowed),
        (&[(0, "issue", "ca.example; validationmethods=ca-x,http-01")], Allowed),
        (&[(0, "issue", "ca.example; validationmethods=dns-01")], methods("dns-01")),
        (&[(0, "issue", "ca.example; validationmethods=")], methods("")),
        (&[(0, "issue", "ca.example; validationmethods=http-01,")], methods("http-01,")),
        (&[(0, "issue", "ca.example; validationmethods=http_1,http-01")], methods("http_1,http-01")),
        (&[(0, "issue", "ca.example; validationmethods=HTTP-01")], methods("HTTP-01")),
        (
            &[(0, "issue", "ca.example; validationmethods=http-01; validationmethods=http-01")],
            methods("http-01; http-01"),
        ),
        (&[(0, "issue", "ca.example; validationmethods=dns-01"), (0, "issue", "ca.example")], Allowed),
        (
            &[(0, "issue", "ca.example; validationmethods=dns-01; accounturi=https://ca.example/acct/8")],
            methods("dns-01"),
        ),
    ] {
        let identities = identities();
        let question = Question {
            identities: &identities,
            account_uri: Some(ACCOUNT),
            method: "http-01",
            wildcard: false,
        };
        assert_eq!(decide(&records(set), &question), expected, "{set:?}");
    }
}

#[test]
fn for_a_wildcard() {
    for (set, expected) in [
        (&[][..], Verdict::Allowed),
        (&[(0, "issue", "ca.example")], Verdict::Allowed),
        (&[(0, "issue", "other.example")], others(&["other.example"])),
        (&[(0, "issuewild", "ca.example")], Verdict::Allowed),
        (&[(0, "issuewild", "ca.example"), (0, "issue", ";")], Verdict::Allowed),
        (&[(0, "issuewild", ";"), (0, "issue", "ca.example")], forbidden(Reason::Nobody)),
        (&[(0, "IssueWild", "other.example"), (0, "issue", "ca.example")], others(&["other.example"])),
        (&[(0, "issuewild", "%"), (0, "issue", "ca.example")], malformed("%")),
        (&[(0, "iodef", "mailto:a@b.example")], Verdict::Allowed),
    ] {
        let identities = identities();
        let question = Question {
            identities: &identities,
            account_uri: Some(ACCOUNT),
            method: "http-01",
            wildcard: true,
        };
        assert_eq!(decide(&records(set), &question), expected, "{set:?}");
    }
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let known = identities();
    let ask = |identities: &[String], value: &str| {
        let question = Question { identities, account_uri: None, method: "http-01", wildcard: false };
        decide(&records(&[(0, "issue", value)]), &question)
    };
    for (identities, value, expected) in [
        (&[][..], "ca.example", Verdict::Unknown),
        (&[], "ca.example; validationmethods=dns-01", Verdict::Unknown),
        (&[], ";", forbidden(Reason::Nobody)),
        (&[], "%", malformed("%")),
        (&known, "ca.example", Verdict::Allowed),
        (&known, "ca.example; accounturi=https://ca.example/acct/7", Verdict::Unknown),
        (&known, "ca.example; accounturi=a; accounturi=a", account_of("a; a")),
        (
            &known,
            "ca.example; accounturi=https://ca.example/acct/7; validationmethods=dns-01",
            methods("dns-01"),
        ),
        (&known, "other.example", others(&["other.example"])),
    ] {
        assert_eq!(ask(identities, value), expected, "{identities:?} {value}");
    }
    let question = Question { identities: &[], account_uri: None, method: "http-01", wildcard: false };
    assert_eq!(decide(&[], &question), Verdict::Allowed);
    assert_eq!(decide(&records(&[(0, "iodef", "mailto:a@b.example")]), &question), Verdict::Allowed);
    assert_eq!(
        decide(&records(&[(0, "issue", ";"), (0, "issue", "any.example")]), &question),
        Verdict::Unknown
    );
}

#[test]
fn a_trailing_dot_in_the_directory_is_forgiven() {
    let identities = ["CA.example.".to_owned()];
    let question =
        Question { identities: &identities, account_uri: None, method: "http-01", wildcard: false };
    assert_eq!(decide(&records(&[(0, "issue", "ca.example")]), &question), Verdict::Allowed);
}

#[test]
fn every_reason_tells_what_to_set() {
    let identities = ["letsencrypt.org".to_owned()];
    let at = "null-i.net".parse().unwrap();
    let question =
        Question { identities: &identities, account_uri: Some(ACCOUNT), method: "http-01", wildcard: false };
    for (reason, expected) in [
        (
            Reason::OthersOnly { named: vec!["pki.goog".into(), "a\u{1b}b".into()] },
            "the CAA records of null-i.net let pki.goog, a b issue, and not letsencrypt.org; \
             add the record: null-i.net. CAA 0 issue \"letsencrypt.org\"",
        ),
        (
            Reason::Nobody,
            "the CAA records of null-i.net let nobody issue; \
             set in its place: null-i.net. CAA 0 issue \"letsencrypt.org\"",
        ),
        (
            Reason::UnknownCritical { tag: "novel".into() },
            "the CAA records of null-i.net have one with the tag `novel`, marked critical, which a CA that \
             does not know it must obey by refusing; remove it, or set its flags to 0",
        ),
        (
            Reason::OtherAccount { uri: "https://ca.example/acct/8".into() },
            "the CAA records of null-i.net let letsencrypt.org issue for the account \
             https://ca.example/acct/8 only, and ours is https://ca.example/acct/7; add the record: \
             null-i.net. CAA 0 issue \"letsencrypt.org; accounturi=https://ca.example/acct/7\"",
        ),
        (
            Reason::OtherMethods { methods: "dns-01".into() },
            "the CAA records of null-i.net let letsencrypt.org issue after a validation by `dns-01` only, \
             and ours is http-01; add the record: \
             null-i.net. CAA 0 issue \"letsencrypt.org; validationmethods=http-01\"",
        ),
        (
            Reason::Malformed { value: "%%%%%".into() },
            "a CAA record of null-i.net has the value `%%%%%`, which is no issuer with `tag=value` \
             parameters, and so lets nobody issue; \
             correct it, or add: null-i.net. CAA 0 issue \"letsencrypt.org\"",
        ),
    ] {
        assert_eq!(reason.explain(&at, &question), expected);
    }
    let nameless = Question { identities: &[], account_uri: None, method: "http-01", wildcard: true };
    assert_eq!(
        Reason::Nobody.explain(&at, &nameless),
        "the CAA records of null-i.net let nobody issue; set in its place: \
         null-i.net. CAA 0 issuewild \"the CA's issuer domain name\""
    );
    let many = Reason::OthersOnly { named: (0..2000).map(|i| format!("{i}.example")).collect() };
    assert!(many.explain(&at, &question).contains("4.example and 1995 more issue"));
}

/// A record set according to the advice is one that allows.
#[test]
fn the_advice_works() {
    let identities = identities();
    let at = "null-i.net".parse().unwrap();
    for wildcard in [false, true] {
        let question =
            Question { identities: &identities, account_uri: Some(ACCOUNT), method: "http-01", wildcard };
        for reason in [
            Reason::Nobody,
            Reason::OthersOnly { named: vec!["other.example".into()] },
            Reason::OtherAccount { uri: "x".into() },
            Reason::OtherMethods { methods: "dns-01".into() },
            Reason::Malformed { value: "%".into() },
        ] {
            let advice = reason.explain(&at, &question);
            let (_, record) = advice.rsplit_once("null-i.net. CAA 0 ").unwrap();
            let (tag, value) = record.split_once(' ').unwrap();
            let set = records(&[(0, tag, value.trim_matches('"')), (0, "issue", "other.example")]);
            assert_eq!(decide(&set, &question), Verdict::Allowed, "{advice}");
        }
    }
}

proptest! {
    #[test]
    fn no_value_panics(
        set in proptest::collection::vec((any::<bool>(), "(issue|issuewild|\\PC{0,8})", "\\PC{0,60}"), 0..5),
        wildcard: bool,
    ) {
        let set: Vec<CaaRecord> =
            set.into_iter().map(|(critical, tag, value)| CaaRecord { critical, tag, value }).collect();
        let identities = identities();
        let question =
            Question { identities: &identities, account_uri: Some(ACCOUNT), method: "http-01", wildcard };
        if let Verdict::Forbidden { reason } = decide(&set, &question) {
            let text = reason.explain(&"null-i.net".parse().unwrap(), &question);
            prop_assert!(!text.contains('\n') && text.chars().count() < 1200, "{}", text);
        }
    }

    /// Whatever else stands there, one record for us is enough.
    #[test]
    fn one_permission_is_enough(values in proptest::collection::vec("[a-z;=. %-]{0,40}", 0..5), at: usize) {
        let mut set: Vec<CaaRecord> = values
            .into_iter()
            .map(|value| CaaRecord { critical: false, tag: "issue".into(), value })
            .collect();
        set.insert(at % (set.len() + 1), records(&[(0, "issue", "ca.example")]).remove(0));
        let identities = identities();
        let question =
            Question { identities: &identities, account_uri: None, method: "http-01", wildcard: false };
        prop_assert_eq!(decide(&set, &question), Verdict::Allowed);
    }
}
