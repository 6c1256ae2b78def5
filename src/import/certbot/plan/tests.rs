use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer as Signer, KeyPair, date_time_ymd};

use super::super::accounts::tests::account;
use super::super::configuration::Place;
use super::super::keep::{Kept, keep_account, keep_lineage};
use super::super::tree::{FoundLineage, FoundVersion};
use super::*;
use crate::config::{Config, Flags, KeyType, Partial};
use crate::store::Store;

const SERVER: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

fn now() -> SystemTime {
    "2026-11-27T00:00:00Z".parse::<Timestamp>().unwrap().into()
}

fn key(kind: KeyType) -> KeyPair {
    let algorithm = match kind {
        KeyType::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        KeyType::Rsa2048 => &rcgen::PKCS_RSA_SHA256,
        _ => &rcgen::PKCS_ECDSA_P256_SHA256,
    };
    KeyPair::generate_for(algorithm).unwrap()
}

/// Chain and key, signed by a root that comes with it, until the end of a year.
fn pair(names: &[&str], year: i32, kind: KeyType) -> (String, String) {
    let mut root = CertificateParams::new([]).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Signer::new(root, &root_key);
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.not_before = date_time_ymd(year, 1, 1);
    leaf.not_after = date_time_ymd(year, 12, 31);
    let key = key(kind);
    (leaf.signed_by(&key, &issuer).unwrap().pem() + &root_pem, key.serialize_pem())
}

fn version((chain, key): (String, String)) -> FoundVersion {
    FoundVersion {
        place: "archive/x, version 1".to_owned(),
        chain: Ok(chain),
        leaf: None,
        key: Ok(key.into()),
    }
}

fn file(server: &str, more: &str) -> String {
    format!(
        "version = 2.1.0\n[renewalparams]\naccount = 0123\nserver = {server}\nkey_type = ecdsa\nauthenticator = webroot\n{more}"
    )
}

fn lineage(name: &str, file: String, pair: (String, String)) -> FoundLineage {
    FoundLineage {
        name: name.to_owned(),
        file: Ok(file),
        versions: vec![version(pair)],
        troubles: Vec::new(),
    }
}

/// One with all in order.
fn usual(name: &str, more: &str) -> FoundLineage {
    lineage(name, file(SERVER, more), pair(&[name, &format!("www.{name}")], 2026, KeyType::EcdsaP256))
}

fn tree(lineages: Vec<FoundLineage>) -> Tree {
    let accounts = vec![
        account("acme-v02.api.letsencrypt.org/directory", "0123", "2020"),
        account("acme-staging-v02.api.letsencrypt.org/directory", "4567", "2020"),
        account("ca.test/dir", "89", "2020"),
    ];
    Tree { shown: "/etc/letsencrypt".into(), lineages, accounts, ..Tree::default() }
}

fn place() -> Place {
    Place { state_dir: "/var/lib/wicketgate".into(), roots: None }
}

/// The plan, with the configuration that it writes, which has nothing wrong.
#[track_caller]
fn planned(tree: &Tree) -> (Plan, Config) {
    let plan = Plan::new(tree, now());
    let text = plan.configuration(&place());
    let config = Config::parse(&text, "test.toml".as_ref(), [], &Flags::default());
    let config = config.unwrap_or_else(|e| panic!("{e}\n{text}"));
    let is_empty = config.certificates.is_empty();
    assert_eq!(config.warnings.len(), usize::from(is_empty), "{:?}\n{text}", config.warnings);
    (plan, config)
}

#[track_caller]
fn says(sentences: &[String], wanted: &str) {
    assert!(sentences.iter().any(|sentence| sentence.contains(wanted)), "{wanted} is not in {sentences:#?}");
}

#[test]
fn a_usual_folder_is_carried_over() {
    let rsa = lineage(
        "rsa.test",
        file(SERVER, "allow_subset_of_names = True\ninstaller = nginx\n").replace("ecdsa", "rsa"),
        pair(&["rsa.test"], 2026, KeyType::Rsa2048),
    );
    let (plan, config) = planned(&tree(vec![usual("a.test", "preferred_profile = tlsserver\n"), rsa]));
    assert!(!plan.has_troubles());
    assert_eq!(config.acme.issuer, Issuer::LetsEncrypt);
    assert_eq!(config.acme.contact, ["mailto:ops@a.test"]);
    assert!(config.acme.terms_agreed);
    let [a, rsa] = &config.certificates[..] else { panic!("{:?}", config.certificates) };
    assert_eq!(
        (a.name.as_str(), a.identifiers.len(), a.key_types.clone()),
        ("a.test", 2, vec![KeyType::EcdsaP256])
    );
    assert_eq!((a.profile.as_deref(), a.partial), (Some("tlsserver"), Partial::Emergency));
    assert_eq!((rsa.key_types.clone(), rsa.partial), (vec![KeyType::Rsa2048], Partial::Always));
    assert_eq!((rsa.deploy.as_slice(), a.deploy.len()), (["nginx".to_owned()].as_slice(), 0));
    assert_eq!(config.deploy["nginx"].service, Some(crate::config::Service::Nginx));
    says(&plan.lineages[1].notes, "`installer = nginx`: nginx is tested, reloaded and looked at");
    assert_eq!(plan.version.as_deref(), Some("2.1.0"));
    assert!(plan.lineages.iter().all(|lineage| lineage.certificate.is_some()));
}

#[test]
fn a_wildcard_stays_with_certbot() {
    let both = pair(&["w.test", "*.w.test"], 2026, KeyType::EcdsaP256);
    let dns = file(SERVER, "dns_foo_credentials = /root/foo.ini\n").replace("webroot", "dns-foo");
    let (plan, config) = planned(&tree(vec![usual("a.test", ""), lineage("w.test", dns, both)]));
    assert_eq!(config.certificates.len(), 1);
    let wildcard = &plan.lineages[1];
    assert!(wildcard.certificate.is_none() && wildcard.troubles.is_empty());
    says(wildcard.left_out.as_slice(), "*.w.test cannot be proven by http-01");
    // It needs its plugin and the credentials as before.
    assert_eq!(wildcard.notes, [""; 0]);
    let text = plan.configuration(&place());
    assert!(text.contains("#[[certificate]]\n#hostnames = [\"w.test\"]\n"), "{text}");
}

#[test]
fn what_was_proven_in_dns_is_carried_over_with_a_word() {
    let dns = file(SERVER, "").replace("webroot", "dns-foo");
    let (plan, config) =
        planned(&tree(vec![lineage("d.test", dns, pair(&["d.test"], 2026, KeyType::EcdsaP256))]));
    assert_eq!(config.certificates.len(), 1);
    says(&plan.lineages[0].notes, "port 80 of each must lead to the gate");
    assert!(!plan.lineages[0].was_proven_by_http);
}

#[test]
fn files_that_do_not_hold_together_are_left_and_the_names_stay() {
    let (chain, _) = pair(&["b.test"], 2026, KeyType::EcdsaP256);
    let (_, other) = pair(&["b.test"], 2026, KeyType::EcdsaP256);
    let keyless = FoundVersion {
        key: Err("`privkey1.pem` is missing".to_owned()),
        ..version(pair(&["c.test"], 2026, KeyType::EcdsaP256))
    };
    let leaf = pair(&["l.test"], 2026, KeyType::EcdsaP256).0;
    let leaf = FoundVersion {
        chain: Err("`fullchain1.pem` is missing".to_owned()),
        leaf: Some(leaf),
        key: Err("`privkey1.pem` is missing".to_owned()),
        place: "archive/l.test, version 1".to_owned(),
    };
    let broken = vec![
        lineage("b.test", file(SERVER, ""), (chain, other)),
        FoundLineage { versions: vec![keyless], ..usual("c.test", "") },
        lineage("e.test", file(SERVER, ""), pair(&["e.test"], 2025, KeyType::EcdsaP256)),
        FoundLineage { versions: vec![leaf], ..usual("l.test", "") },
        FoundLineage {
            versions: Vec::new(),
            ..usual("m.test", "[[webroot_map]]\nm.test = /w\nx.m.test = /w\n")
        },
        FoundLineage { versions: Vec::new(), ..usual("n.test", "") },
        lineage("o.test", file(SERVER, ""), ("no PEM".to_owned(), "nor here".to_owned())),
    ];
    let (plan, config) = planned(&tree(broken));
    let of = |name: &str| plan.lineages.iter().find(|lineage| lineage.name == name).unwrap();
    assert!(plan.lineages.iter().all(|lineage| lineage.certificate.is_none()));
    says(&of("b.test").troubles, "the private key does not belong to the certificate");
    says(&of("c.test").troubles, "`privkey1.pem` is missing");
    says(&of("e.test").notes, "it ended 331 days ago: it is obtained anew");
    assert!(of("e.test").troubles.is_empty());
    says(&of("m.test").notes, "its names are those of its web roots");
    says(&of("n.test").troubles, "it has no files in `live` and `archive`");
    says(of("n.test").left_out.as_slice(), "its names are not known");
    says(&of("o.test").troubles, "there is no PEM certificate in it");
    let names: Vec<_> = config.certificates.iter().map(|c| (c.name.as_str(), c.identifiers.len())).collect();
    assert_eq!(names, [("b.test", 1), ("c.test", 1), ("e.test", 1), ("l.test", 1), ("m.test", 2)]);
}

#[test]
fn an_older_version_takes_the_place_of_a_broken_one() {
    let mut found = usual("a.test", "");
    let newest = FoundVersion {
        place: "archive/a.test, version 2".to_owned(),
        chain: Ok(String::from("half")),
        leaf: None,
        key: Err("`privkey2.pem` is missing".to_owned()),
    };
    found.versions.insert(0, newest);
    let (plan, _) = planned(&tree(vec![found]));
    let lineage = &plan.lineages[0];
    assert!(lineage.certificate.is_some() && lineage.troubles.is_empty());
    says(&lineage.notes, "`privkey2.pem` is missing");
    says(&lineage.notes, "its files are those of `archive/x, version 1`");
}

#[test]
fn the_names_of_a_broken_newer_version_are_the_wanted_ones() {
    let mut found = usual("a.test", "");
    let newest = FoundVersion {
        place: "archive/a.test, version 2".to_owned(),
        key: Err("`privkey2.pem` is missing".to_owned()),
        ..version(pair(&["a.test", "www.a.test", "new.a.test"], 2026, KeyType::EcdsaP256))
    };
    found.versions.insert(0, newest);
    let (plan, config) = planned(&tree(vec![found]));
    says(&plan.lineages[0].notes, "a newer version has other names");
    assert_eq!(config.certificates[0].identifiers.len(), 3);
    let holder = tempfile::tempdir().unwrap();
    let store = Store::open(&holder.path().join("state")).unwrap();
    keep_lineage(Some(&store), &plan.lineages[0], true).unwrap();
    assert_eq!(store.lineage_state("a.test").unwrap().ordered_for.len(), 2);
}

#[test]
fn one_ca_is_configured_and_the_others_wait_as_comments() {
    let of =
        |name: &str, server: &str| lineage(name, file(server, ""), pair(&[name], 2026, KeyType::EcdsaP256));
    let all = vec![
        of("s.test", STAGING),
        of("t.test", STAGING),
        of("z.test", "https://acme.zerossl.com/v2/DV90"),
        of("a.test", "https://acme-v01.api.letsencrypt.org/directory"),
        of("h.test", "http://ca.test/dir"),
    ];
    let (plan, config) = planned(&tree(all));
    assert_eq!(config.acme.issuer, Issuer::LetsEncrypt);
    assert_eq!(config.certificates.len(), 1);
    says(plan.lineages[0].left_out.as_slice(), "it was for tries");
    says(plan.lineages[2].left_out.as_slice(), "with `fallback-issuers = [\"zerossl\"]`");
    says(plan.lineages[4].left_out.as_slice(), "is not https");
    assert!(plan.lineages.iter().all(|lineage| lineage.certificate.is_some()));

    let (_, config) = planned(&tree(vec![of("s.test", STAGING)]));
    assert_eq!(config.acme.issuer, Issuer::LetsEncryptStaging);
    let (_, config) = planned(&tree(vec![of("p.test", "https://ca.test/dir")]));
    assert_eq!(config.acme.issuer.directory_url().as_deref(), Some("https://ca.test/dir"));
}

#[test]
fn of_twins_the_one_that_lasts_longer_is_configured() {
    let twin =
        |name: &str, year, kind| lineage(name, file(SERVER, ""), pair(&["a.test", "www.a.test"], year, kind));
    let (plan, config) = planned(&tree(vec![
        twin("a.test", 2026, KeyType::EcdsaP256),
        twin("a.test-0001", 2027, KeyType::EcdsaP256),
        twin("a.test-0002", 2027, KeyType::EcdsaP256),
        twin("a.test-rsa", 2026, KeyType::Rsa2048),
        usual("b.test", ""),
    ]));
    let names: Vec<_> = config.certificates.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a.test-0001", "a.test-rsa", "b.test"]);
    says(
        plan.lineages[0].left_out.as_slice(),
        "the same names as a.test-0001, whose certificate lasts longer",
    );
    says(plan.lineages[2].left_out.as_slice(), "is to read live/a.test-0001");
}

#[test]
fn without_an_account_the_terms_are_left_to_a_person() {
    let tree = Tree { accounts: Vec::new(), ..tree(vec![usual("a.test", "")]) };
    let plan = Plan::new(&tree, now());
    says(
        &plan.lineages[0].notes,
        "its account 0123 at https://acme-v02.api.letsencrypt.org/directory is not there",
    );
    let text = plan.configuration(&place());
    let told = Config::parse(&text, "test.toml".as_ref(), [], &Flags::default()).unwrap_err().to_string();
    assert!(told.contains("acme.terms-agreed"), "{told}");
    Config::parse(&text.replace("#terms", "terms"), "test.toml".as_ref(), [], &Flags::default()).unwrap();
}

#[test]
fn what_is_wished_but_not_here_is_told() {
    let odd = vec![
        usual("left.test", "autorenew = False\n"),
        lineage("single", file(SERVER, ""), pair(&["intranet"], 2026, KeyType::EcdsaP256)),
        lineage("under", file(SERVER, ""), pair(&["under.test", "a_b.under.test"], 2026, KeyType::EcdsaP256)),
        lineage("ip", file(SERVER, ""), pair(&["192.0.2.1"], 2026, KeyType::EcdsaP256)),
        lineage(
            "k.test",
            file(SERVER, "elliptic_curve = secp384r1\n"),
            pair(&["k.test"], 2026, KeyType::EcdsaP256),
        ),
        lineage("my site", file(SERVER, ""), pair(&["site.test"], 2026, KeyType::EcdsaP256)),
        lineage("my_site", file(SERVER, ""), pair(&["other.test"], 2026, KeyType::EcdsaP256)),
        usual("a.test", "renew_hook = '''x\\\n\u{1b}[2J # y\nz = 1'''\n"),
    ];
    let tree = Tree {
        hooks: vec!["renewal-hooks/deploy/reload".to_owned()],
        options: vec!["pre-hook = x".to_owned()],
        orphans: vec!["old.test".to_owned()],
        troubles: vec!["`live` has something".to_owned()],
        ..tree(odd)
    };
    let (plan, config) = planned(&tree);
    let of = |name: &str| plan.lineages.iter().find(|lineage| lineage.original == name).unwrap();
    says(of("left.test").left_out.as_slice(), "certbot was told not to renew it");
    says(of("single").left_out.as_slice(), "`intranet` is no name that a public CA signs");
    says(&of("under").notes, "it has a_b.under.test, which cannot be ordered here");
    assert_eq!(of("ip").profile.as_deref(), Some("shortlived"));
    assert_eq!(of("k.test").key_type, KeyType::EcdsaP256);
    says(&of("k.test").notes, "its file asks for ecdsa-p384, and its key is ecdsa-p256, which stays");
    assert_eq!((of("my site").name.as_str(), of("my_site").name.as_str()), ("_my_site", "my_site"));
    let names: Vec<_> = config.certificates.iter().map(|certificate| certificate.name.as_str()).collect();
    assert_eq!(names, ["under", "ip", "k.test", "_my_site", "my_site", "a.test"]);
    for wanted in ["`renewal-hooks/deploy/reload`", "`pre-hook = x`", "`live/old.test`"] {
        says(&plan.left_behind, wanted);
    }
    assert!(plan.has_troubles());
    let text = plan.configuration(&place());
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.contains("renewal-hooks/deploy/reload"), "{text}");
}

#[test]
fn the_gate_listens_where_certbot_did() {
    let standalone = |more: &str| file(SERVER, more).replace("webroot", "standalone");
    let of =
        |name: &str, more: &str| lineage(name, standalone(more), pair(&[name], 2026, KeyType::EcdsaP256));
    let port = |found| planned(&tree(found)).1.gate.listen;
    let behind = |name| of(name, "http01_port = 8888\nhttp01_address = 127.0.0.1\n");
    assert_eq!(port(vec![behind("a.test"), behind("b.test")]), ["127.0.0.1:8888".parse().unwrap()]);
    assert_eq!(port(vec![of("a.test", "http01_port = 8888\n")]), ["[::]:8888".parse().unwrap()]);
    assert_eq!(port(vec![of("a.test", "http01_port = 80\n")]), ["[::]:80".parse().unwrap()]);
    let (plan, config) = planned(&tree(vec![behind("a.test"), usual("b.test", "")]));
    assert_eq!(config.gate.listen, ["[::]:80".parse().unwrap()]);
    says(&plan.left_behind, "the lineages do not agree");
}

#[test]
fn the_place_is_written_where_it_is_not_the_usual_one() {
    let plan = Plan::new(&tree(vec![usual("a.test", "")]), now());
    let place = Place { state_dir: "/srv/w \"x\"".into(), roots: Some("/etc/ssl/own.pem".into()) };
    let text = plan.configuration(&place);
    assert!(text.contains("state-dir = '/srv/w \"x\"'\n"), "{text}");
    assert!(text.contains("roots = \"/etc/ssl/own.pem\"\n"), "{text}");
}

#[test]
fn nothing_is_put_over_what_is_as_new() {
    let holder = tempfile::tempdir().unwrap();
    let store = Store::open(&holder.path().join("state")).unwrap();
    let plan_of = |year| {
        let found = lineage("a.test", file(SERVER, ""), pair(&["a.test"], year, KeyType::EcdsaP256));
        let at = format!("{year}-06-01T00:00:00Z").parse::<Timestamp>().unwrap();
        Plan::new(&tree(vec![found]), at.into())
    };
    let (older, newer) = (plan_of(2025), plan_of(2026));
    let keep = |plan: &Plan, write| keep_lineage(Some(&store), &plan.lineages[0], write).unwrap();
    let live = || store.current("a.test").unwrap().map(|(version, _)| version);

    assert_eq!((keep(&older, false), live()), (Kept::Imported, None));
    assert_eq!((keep(&older, true), live()), (Kept::Imported, Some(1)));
    assert_eq!((keep(&older, true), live()), (Kept::Same, Some(1)));
    assert_eq!((keep(&newer, true), live()), (Kept::Imported, Some(2)));
    assert_eq!((keep(&older, true), live()), (Kept::Newer(2), Some(2)));

    // One that nobody trusts does not count; one whose memory was lost gets it back.
    let mut state = store.lineage_state("a.test").unwrap();
    assert_eq!(
        (state.issuer.as_deref(), &*state.key_types),
        (Some("letsencrypt"), &[KeyType::EcdsaP256][..])
    );
    assert_eq!((state.ordered_for.len(), state.validated.len()), (1, 1));
    assert_eq!(state.obtained_at, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    state.issuer = Some("embedded".to_owned());
    store.save_lineage_state("a.test", &state).unwrap();
    assert_eq!((keep(&older, true), live()), (Kept::Imported, Some(3)));
    store.save_lineage_state("a.test", &Default::default()).unwrap();
    assert_eq!((keep(&older, true), live()), (Kept::Same, Some(3)));
    assert_eq!(store.lineage_state("a.test").unwrap().issuer.as_deref(), Some("letsencrypt"));

    let account = |plan: &Plan| keep_account(Some(&store), plan.account().unwrap(), true).unwrap();
    assert_eq!((account(&older), account(&older)), (Kept::Imported, Kept::Same));
    let kept = store.account("letsencrypt").unwrap();
    store.save_account("letsencrypt", r#"{"id": "https://ca.test/mine"}"#).unwrap();
    assert_eq!(account(&older), Kept::OtherAccount("https://ca.test/mine".to_owned()));
    assert!(kept.is_some_and(|kept| kept.contains("key_pkcs8")));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn whatever_stands_in_a_file_the_configuration_is_right(
        name in "\\PC{1,20}",
        values in proptest::collection::vec("\\PC{0,40}", 8),
    ) {
        let keys = ["renew_hook", "installer", "authenticator", "preferred_profile", "key_type", "http01_port", "rsa_key_size", "other"];
        let lines: Vec<_> = keys.iter().zip(&values).map(|(key, value)| format!("{key} = {value}")).collect();
        let text = format!("version = {}\n[renewalparams]\nserver = {SERVER}\n{}\n", values[0], lines.join("\n"));
        let found = FoundLineage {
            name: name.clone(),
            file: Ok(text),
            versions: Vec::new(),
            troubles: values.clone(),
        };
        let with_names = FoundLineage {
            file: Ok(format!("{}[[webroot_map]]\na.test = {}\n", found.file.clone().unwrap(), values[1])),
            name,
            versions: Vec::new(),
            troubles: Vec::new(),
        };
        let plan = Plan::new(&tree(vec![found, with_names]), now());
        let text = plan.configuration(&place());
        let config = Config::parse(&text, "test.toml".as_ref(), [], &Flags::default());
        proptest::prop_assert!(config.is_ok(), "{:?}\n{}", config.err(), text);
    }
}
