//! A CA that is away, broken or wrong: each time one clear sentence, and the certificate that was served
//! before still is.

use std::time::Duration;

use wicketgate::clock;
use wicketgate::rehearsal::{AnswerFault, AnswerScope, ChainFault, Faults, ProblemType};

use crate::bed::client::served_leaf;
use crate::bed::fickle::FickleCa;
use crate::bed::process::{Ran, run_within};
use crate::bed::wicketgate::{Daemon, Setup, command};
use crate::bed::{Bed, needs};

const NAME: &str = "www.example.test";

/// A served certificate, and the CA that it came from when that was well.
struct Served {
    bed: Bed,
    ca: FickleCa,
    setup: Setup,
    _daemon: Daemon,
}

impl Served {
    fn new() -> Self {
        let bed = Bed::new();
        let gate = bed.port();
        let ca = FickleCa::start(&bed, gate, &[NAME]);
        let mut setup = Setup::new(&bed, &ca.directory, &ca.root).certificate(&[NAME]);
        setup.gate = gate;
        let (daemon, _) = setup.start_until_served(&bed, NAME);
        Self { bed, ca, setup, _daemon: daemon }
    }

    /// Renews while something is wrong: it fails with these words, and what is served and stored stays.
    #[track_caller]
    fn fails(&self, faults: &Faults, code: i32, words: &[&str]) -> Ran {
        let before = (self.setup.stored(NAME), served_leaf(self.setup.front, NAME));
        self.ca.set(faults.clone());
        let mut renew = command(&self.setup.write(&self.bed));
        let ran = run_within(Duration::from_secs(100), renew.args(["renew", "--force"])).expect_code(code);
        for word in words {
            assert!(ran.text().contains(word), "{faults:?}: `{word}` is not in: {}", ran.text());
        }
        assert!(ran.text().contains("what was served before still is"), "{faults:?}: {}", ran.text());
        let after = (self.setup.stored(NAME), served_leaf(self.setup.front, NAME));
        assert_eq!(after, before, "{faults:?} changed what is served");
        ran
    }

    #[track_caller]
    fn recovers(&self) {
        let before = self.setup.stored(NAME);
        self.ca.set(Faults::default());
        self.setup.command(&self.bed, &["renew", "--force"]).expect_code(0);
        let after = self.setup.stored(NAME);
        assert_ne!(after[0].serial, before[0].serial);
        assert_eq!(served_leaf(self.setup.front, NAME).unwrap(), after[0]);
    }
}

#[test]
fn a_wrong_chain_is_never_served() {
    needs!("openssl");
    let served = Served::new();
    for (chain, words) in [
        (ChainFault::WrongKey, "the private key does not belong to the certificate"),
        (ChainFault::WrongName, "the certificate does not cover www.example.test"),
        (ChainFault::Expired, "the certificate expired"),
        (ChainFault::ReversedOrder, "the server's certificate must come first"),
        (ChainFault::MissingIntermediate, "the CA sent the certificate alone"),
    ] {
        served.fails(&Faults { chain, ..Faults::default() }, 1, &[words]);
    }
    served.recovers();
}

#[test]
fn an_answer_that_is_none_is_shown_for_what_it_is() {
    needs!("openssl");
    let served = Served::new();
    for path in ["/new-order", "/authorization/", "/finalize/", "/certificate/"] {
        for (answer, words) in NO_ANSWERS {
            let answer_scope = AnswerScope::Path(path);
            served.fails(&Faults { answer, answer_scope, ..Faults::default() }, 1, &[words]);
        }
    }
    served.recovers();
}

/// What is no ACME answer, and what is said of it.
const NO_ANSWERS: [(AnswerFault, &str); 4] = [
    (AnswerFault::Garbage, "is the issuer's directory URL right"),
    (AnswerFault::Html, "is the issuer's directory URL right"),
    (AnswerFault::Redirect, "redirects to"),
    (AnswerFault::Endless, "is the directory URL right"),
];

#[test]
fn an_answer_to_a_challenge_that_is_none_ends_the_order() {
    let bed = Bed::new();
    let gate = bed.port();
    let names = ["n0.example.test", "n1.example.test", "n2.example.test", "n3.example.test"];
    let ca = FickleCa::start(&bed, gate, &names);
    for ((answer, words), name) in NO_ANSWERS.into_iter().zip(names) {
        // A name that was never proven, so that there is a challenge.
        let mut setup = Setup::new(&bed, &ca.directory, &ca.root).certificate(&[name]).without_front();
        setup.gate = gate;
        ca.set(Faults { answer, answer_scope: AnswerScope::Path("/challenge/"), ..Faults::default() });
        let ran = setup.renew(&bed).expect_code(1);
        assert!(ran.text().contains(words), "{answer:?}: {}", ran.text());
        assert!(!setup.live(name).exists());
    }
}

#[test]
fn a_directory_that_is_none_is_shown_for_what_it_is() {
    let bed = Bed::new();
    let gate = bed.port();
    let ca = FickleCa::start(&bed, gate, &[NAME]);
    let mut setup = Setup::new(&bed, &ca.directory, &ca.root).certificate(&[NAME]).without_front();
    setup.gate = gate;
    for (answer, words) in NO_ANSWERS {
        ca.set(Faults { answer, ..Faults::default() });
        let ran = setup.command(&bed, &["renew", "--force"]).expect_code(1);
        assert!(ran.text().contains(words), "{answer:?}: {}", ran.text());
        assert!(!setup.live(NAME).exists());
    }
    ca.set(Faults::default());
    setup.command(&bed, &["renew", "--force"]).expect_code(0);
    // The same with an account that is kept.
    ca.set(Faults { answer: AnswerFault::Html, ..Faults::default() });
    let before = setup.stored(NAME);
    setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert_eq!(setup.stored(NAME), before);
}

#[test]
fn a_ca_that_hangs_is_given_up() {
    needs!("openssl");
    let served = Served::new();
    let answer_scope = AnswerScope::Path("/new-order");
    let began = clock::monotonic();
    let hangs = Faults { answer: AnswerFault::Hang, answer_scope, ..Faults::default() };
    served.fails(&hangs, 1, &["no answer from 127.0.0.1"]);
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    served.recovers();
}

#[test]
fn a_ca_that_is_away_is_named_with_what_to_look_at() {
    needs!("openssl");
    let served = Served::new();
    let Served { bed, ca, setup, _daemon } = served;
    drop(ca);
    let before = served_leaf(setup.front, NAME);
    let ran = setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert!(ran.text().contains("is the CA up, and may this machine reach it"), "{}", ran.text());
    assert_eq!(served_leaf(setup.front, NAME), before);
    assert!(before.is_some());
}

#[test]
fn a_ca_of_unknown_root_is_not_spoken_to() {
    let bed = Bed::new();
    let gate = bed.port();
    let ca = FickleCa::start(&bed, gate, &[NAME]);
    let stranger = crate::bed::pki::Pki::new(bed.dir(), "stranger", &["localhost"]);
    let mut setup = Setup::new(&bed, &ca.directory, &stranger.root).certificate(&[NAME]).without_front();
    setup.gate = gate;
    let ran = setup.renew(&bed).expect_code(1);
    assert!(ran.text().contains("put the root it comes from into `acme.roots`"), "{}", ran.text());
}

#[test]
fn what_the_ca_says_is_told_with_a_remedy() {
    needs!("openssl");
    let served = Served::new();
    let order_error = Some(ProblemType::Caa);
    served.fails(&Faults { order_error, ..Faults::default() }, 1, &["(caa)", "CAA record"]);
    let limited = Faults { retry_after_429: Some(Duration::from_secs(7200)), ..Faults::default() };
    served.fails(&limited, 75, &["(rateLimited)", "waiting is the only remedy"]);
    // Whatever the CA would say by now, it has named a time, and nobody asks it before that.
    served.ca.set(Faults::default());
    let ran = served.setup.command(&served.bed, &["renew", "--force"]).expect_code(75);
    assert!(ran.text().contains("has asked to be left alone until"), "{}", ran.text());
    assert!(ran.text().contains("`--force` does not change that"), "{}", ran.text());
}

#[test]
fn slow_and_forgetful_is_not_wrong() {
    needs!("openssl");
    let served = Served::new();
    let before = served.setup.stored(NAME)[0].serial.clone();
    served.ca.set(Faults {
        seed: 7,
        bad_nonce_percent: 50,
        processing: Duration::from_secs(2),
        processing_retry_after: Some(Duration::from_secs(1)),
        ..Faults::default()
    });
    served.setup.command(&served.bed, &["renew", "--force"]).expect_code(0);
    assert_ne!(served.setup.stored(NAME)[0].serial, before);
}

#[test]
fn nothing_that_answers_for_the_gate_is_explained() {
    needs!("openssl");
    let bed = Bed::new();
    // The CA is led to another port than the gate's, as by a wrong forwarding rule.
    let elsewhere = bed.port();
    let ca = FickleCa::start(&bed, elsewhere, &[NAME]);
    let setup = Setup::new(&bed, &ca.directory, &ca.root).certificate(&[NAME]).without_front();
    let ran = setup.renew(&bed).expect_code(1);
    assert!(ran.text().contains(NAME), "{}", ran.text());
    assert!(ran.text().contains("open it in the firewall"), "{}", ran.text());

    crate::bed::upstream::start_on(elsewhere, |_, mut stream| {
        use std::io::Write;
        // The CA may be gone by now.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    });
    let ran = setup.command(&bed, &["renew", "--force"]).expect_code(1);
    assert!(ran.text().contains("something other than this gate answered the CA"), "{}", ran.text());
}
