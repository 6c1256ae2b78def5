//! What is done to a server that is to take certificates, step by step (pure): a certificate is either
//! shown to be served, or the server goes on with what it had and a person knows.
//!
//! ```text
//! running? → copy → check → reload → look → done
//!    └ no → copy, for whoever starts it
//!                     │        └ dead → start → look
//!                     └ the previous version back: copies at once, `live` only if the check passes with it
//! ```
//!
//! [`Transaction::next`] takes what the last step came to and says the next one; whoever performs the steps
//! decides nothing.

/// What a transaction begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The server reads copies, not what `live` leads to.
    pub has_copies: bool,
    /// There is a place to look at what it serves.
    pub has_endpoints: bool,
    /// The transaction before this one was cut short when the server had been told to reload: if it does
    /// not run, that may be why.
    pub was_cut_short: bool,
    /// The certificates.
    pub items: Vec<Item>,
}

/// A certificate that the server is to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// `live` leads to its previous version, because the server did not take this one before.
    pub is_held_back: bool,
    /// There is something to put back: of copies, a previous version or what was there before; for `live`, a
    /// previous version that is valid still.
    pub can_go_back: bool,
}

/// A version of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is to be served.
    New,
    /// The one before.
    Previous,
}

/// What is to be done next, for the items at those places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Find out whether the server runs: done, failed, or nothing where it cannot be told.
    Running,
    /// Have `live` lead to that version.
    Live(Which, Vec<usize>),
    /// Write its copies, or put back what was there before; each item is answered for, the latter with what
    /// was put back.
    Copy(Which, Vec<usize>),
    /// Test the server's configuration.
    Check,
    /// Make it read its files again.
    Reload(Vec<usize>),
    /// Start it.
    Start,
    /// See what it serves; each item is answered for.
    Look(Vec<usize>),
    /// Nothing; the verdicts stand.
    End,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It was done.
    Done,
    /// There was nothing to do, or it cannot be told.
    Nothing,
    /// It failed; a sentence.
    Failed(String),
    /// An answer for each item, by its place: what was seen to work, or what was not.
    Each(Vec<(usize, Result<String, Fault>)>),
}

/// What was wrong with one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A sentence.
    pub text: String,
    /// Nobody listened.
    pub is_refused: bool,
}

/// How it ended for one item: how it was shown to be served, or why not.
pub type Verdict = Result<String, String>;

/// Where a transaction stands: what was asked for last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    FirstRunning,
    CopyForStart,
    Undoing,
    FirstCopy,
    FirstCheck,
    Reload,
    Look,
    RunningAfter,
    Start,
    LookAgain,
    CopyBack,
    LiveBack,
    CheckBack,
    LiveAgain,
    DeadBack,
    StartBack,
    Ended,
}

/// One server taking certificates.
#[derive(Debug)]
pub struct Transaction {
    beginning: Beginning,
    stage: Stage,
    /// It did not run at the beginning, and shall be started in place of a reload.
    is_to_be_started: bool,
    /// It has ended, and was not started since.
    is_down: bool,
    /// Why it goes back.
    reason: String,
    standings: Vec<Standing>,
}

/// How an item stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Open,
    /// It could not even be handed over.
    Lost(String),
    /// It is not served, as far as was seen.
    Unserved(String),
    /// It is served, as far as was seen.
    Served(String),
}

impl Transaction {
    /// A transaction at its beginning.
    pub fn new(beginning: Beginning) -> Self {
        let standings = vec![Standing::Open; beginning.items.len()];
        let (stage, reason) = (Stage::Begin, String::new());
        Self { beginning, stage, is_to_be_started: false, is_down: false, reason, standings }
    }

    /// The next step, once the last one came to `seen`, which is disregarded the first time.
    pub fn next(&mut self, seen: Seen) -> Step {
        match (self.stage, seen) {
            (Stage::Begin, _) => self.go(Stage::FirstRunning, Step::Running),
            (Stage::FirstRunning, Seen::Failed(text)) if !self.beginning.was_cut_short => {
                self.reason = text;
                // It may not run for want of these files.
                if self.beginning.has_copies {
                    self.go(Stage::CopyForStart, Step::Copy(Which::New, self.open()))
                } else {
                    self.fail(&self.reason.clone())
                }
            }
            (Stage::CopyForStart, seen) => {
                self.judge(seen);
                self.fail(&self.reason.clone())
            }
            (Stage::FirstRunning, seen) => {
                self.is_to_be_started = matches!(seen, Seen::Failed(_));
                match self.places(|item| item.is_held_back) {
                    held if held.is_empty() => self.hand_over(),
                    held => self.go(Stage::Undoing, Step::Live(Which::New, held)),
                }
            }
            (Stage::Undoing, Seen::Failed(text)) => self.fail(&text),
            (Stage::Undoing, _) => self.hand_over(),
            (Stage::FirstCopy, Seen::Failed(text)) => self.fail(&text),
            (Stage::FirstCopy, seen) => {
                self.judge(seen);
                if self.open().is_empty() { self.end() } else { self.go(Stage::FirstCheck, Step::Check) }
            }
            (Stage::FirstCheck, Seen::Failed(text)) => self.go_back(text),
            (Stage::FirstCheck, _) if self.is_to_be_started => {
                self.is_down = true;
                self.go(Stage::Start, Step::Start)
            }
            (Stage::FirstCheck, _) => self.go(Stage::Reload, Step::Reload(self.open())),

            (Stage::Reload, Seen::Failed(text)) => {
                self.reason = text;
                self.go(Stage::RunningAfter, Step::Running)
            }
            (Stage::Reload, _) => self.look(Stage::Look),
            (Stage::Look, Seen::Failed(text)) => self.fail(&text),
            (Stage::Look, seen) => {
                let refusal = self.refusal(&seen);
                self.judge(seen);
                match refusal {
                    Some(text) => {
                        self.reason = text;
                        self.go(Stage::RunningAfter, Step::Running)
                    }
                    None => self.end(),
                }
            }
            (Stage::RunningAfter, Seen::Done) => self.fail(&self.reason.clone()),
            // Where it cannot be told, a server that refuses connections has ended.
            (Stage::RunningAfter, Seen::Nothing) if !self.was_refused() => self.fail(&self.reason.clone()),
            (Stage::RunningAfter, _) => {
                self.is_down = true;
                self.go(Stage::Start, Step::Start)
            }
            (Stage::Start, Seen::Nothing) => {
                let text =
                    format!("{}; it does not run, and there is no command that starts it", self.reason);
                self.fail(&text)
            }
            (Stage::Start, Seen::Failed(text)) => self.bury(&text),
            (Stage::Start, _) => {
                self.is_down = false;
                self.look(Stage::LookAgain)
            }
            (Stage::LookAgain, Seen::Failed(text)) => self.fail(&text),
            (Stage::LookAgain, seen) => match self.refusal(&seen) {
                Some(text) => self.bury(&text),
                None => {
                    self.judge(seen);
                    self.end()
                }
            },

            (Stage::CopyBack, seen) => {
                let text = self.told_of_copies(&seen);
                self.fail(&text)
            }
            (Stage::LiveBack, Seen::Failed(text)) => {
                let text = format!("{}; the previous version could not be put back: {text}", self.reason);
                self.fail(&text)
            }
            (Stage::LiveBack, _) => self.go(Stage::CheckBack, Step::Check),
            (Stage::CheckBack, Seen::Failed(_)) => {
                let back = self.open_that(|item| item.can_go_back);
                self.go(Stage::LiveAgain, Step::Live(Which::New, back))
            }
            (Stage::CheckBack, _) => {
                let text = format!(
                    "{}; with the previous version the test passes, so that one was put back in `live`",
                    self.reason
                );
                self.fail(&text)
            }
            (Stage::LiveAgain, _) => {
                let text = format!(
                    "{}; with the previous version the test fails as well, so the certificate is not the reason",
                    self.reason
                );
                self.fail(&text)
            }
            (Stage::DeadBack, seen) => {
                if self.beginning.has_copies {
                    self.reason = self.told_of_copies(&seen);
                } else if let Seen::Failed(text) = &seen {
                    self.reason =
                        format!("{}; the previous version could not be put back: {text}", self.reason);
                } else {
                    self.reason.push_str("; the previous version was put back");
                }
                self.go(Stage::StartBack, Step::Start)
            }
            (Stage::StartBack, seen) => {
                self.is_down = matches!(seen, Seen::Failed(_));
                let end = match seen {
                    Seen::Failed(text) => format!("THE SERVER IS DOWN: {text}"),
                    _ => "with it the server was started again".to_owned(),
                };
                let text = format!("{}; {end}", self.reason);
                self.fail(&text)
            }
            (Stage::Ended, _) => Step::End,
        }
    }

    /// Whether the server has ended in the course of it, and does not run: who comes next shall start it.
    pub fn is_down(&self) -> bool {
        self.is_down
    }

    /// How it ended for each item, in their order. To be asked at the end.
    pub fn verdicts(self) -> Vec<Verdict> {
        let verdict = |standing| match standing {
            Standing::Served(proof) => Ok(proof),
            Standing::Lost(text) | Standing::Unserved(text) => Err(text),
            Standing::Open => Err("the deploy broke off".to_owned()),
        };
        self.standings.into_iter().map(verdict).collect()
    }

    fn go(&mut self, stage: Stage, step: Step) -> Step {
        self.stage = stage;
        step
    }

    fn end(&mut self) -> Step {
        self.go(Stage::Ended, Step::End)
    }

    fn hand_over(&mut self) -> Step {
        if self.beginning.has_copies {
            self.go(Stage::FirstCopy, Step::Copy(Which::New, self.open()))
        } else {
            self.go(Stage::FirstCheck, Step::Check)
        }
    }

    fn look(&mut self, stage: Stage) -> Step {
        if self.beginning.has_endpoints {
            self.reopen();
            return self.go(stage, Step::Look(self.open()));
        }
        for standing in self.standings.iter_mut().filter(|s| **s == Standing::Open) {
            *standing = Standing::Served(String::new());
        }
        self.end()
    }

    /// The test failed: nothing is reloaded, and the server shall find what it had if it is started anew.
    fn go_back(&mut self, reason: String) -> Step {
        self.reason = format!("{reason}; it was not reloaded, and serves what it served before");
        let back = self.open_that(|item| item.can_go_back);
        if back.is_empty() {
            let text = format!("{}; there is no previous version to put back", self.reason);
            self.fail(&text)
        } else if self.beginning.has_copies {
            self.go(Stage::CopyBack, Step::Copy(Which::Previous, back))
        } else {
            self.go(Stage::LiveBack, Step::Live(Which::Previous, back))
        }
    }

    /// The server has ended and does not start with what it was given.
    fn bury(&mut self, reason: &str) -> Step {
        let before = if self.reason.is_empty() { String::new() } else { format!("{}; ", self.reason) };
        self.is_down = true;
        self.reason = format!("{before}it has ended and could not be started again: {reason}");
        self.reopen();
        let back = self.open_that(|item| item.can_go_back);
        match (back.is_empty(), self.beginning.has_copies) {
            (true, _) => {
                let text = format!("THE SERVER IS DOWN: {}", self.reason);
                self.fail(&text)
            }
            (false, true) => self.go(Stage::DeadBack, Step::Copy(Which::Previous, back)),
            (false, false) => self.go(Stage::DeadBack, Step::Live(Which::Previous, back)),
        }
    }

    /// Every item that nothing is known about failed with that sentence.
    fn fail(&mut self, text: &str) -> Step {
        for standing in self.standings.iter_mut().filter(|s| **s == Standing::Open) {
            *standing = Standing::Unserved(text.to_owned());
        }
        self.end()
    }

    /// Takes answers over.
    fn judge(&mut self, seen: Seen) {
        let Seen::Each(answers) = seen else { return };
        let is_look = matches!(self.stage, Stage::Look | Stage::LookAgain);
        for (place, answer) in answers {
            let Some(standing) = self.standings.get_mut(place) else { continue };
            *standing = match answer {
                Ok(proof) if is_look => Standing::Served(proof),
                Ok(_) => continue,
                Err(fault) if is_look => Standing::Unserved(fault.text),
                Err(fault) => Standing::Lost(fault.text),
            };
        }
    }

    /// What was seen counts no more.
    fn reopen(&mut self) {
        for standing in self.standings.iter_mut().filter(|s| !matches!(s, Standing::Lost(_))) {
            *standing = Standing::Open;
        }
    }

    fn refusal(&self, seen: &Seen) -> Option<String> {
        let Seen::Each(answers) = seen else { return None };
        let fault = answers.iter().filter_map(|(_, answer)| answer.as_ref().err()).find(|f| f.is_refused);
        fault.map(|fault| fault.text.clone())
    }

    fn was_refused(&self) -> bool {
        self.standings.iter().any(|standing| matches!(standing, Standing::Unserved(_)))
    }

    fn told_of_copies(&self, seen: &Seen) -> String {
        let answers = if let Seen::Each(answers) = seen { answers.as_slice() } else { &[] };
        let failed = match seen {
            Seen::Failed(text) => Some(text),
            _ => answers.iter().find_map(|(_, answer)| answer.as_ref().err()).map(|fault| &fault.text),
        };
        let is_back = answers.iter().any(|(_, answer)| answer.as_ref().is_ok_and(|put| !put.is_empty()));
        match failed {
            Some(text) => format!("{}; the files that it had could not be put back: {text}", self.reason),
            None if is_back => format!("{}; the files that it had were put back", self.reason),
            None => format!("{}; its files had not changed, or none were there before", self.reason),
        }
    }

    fn places(&self, which: impl Fn(&Item) -> bool) -> Vec<usize> {
        (0..self.beginning.items.len()).filter(|place| which(&self.beginning.items[*place])).collect()
    }

    /// The items that nothing is decided about.
    fn open(&self) -> Vec<usize> {
        self.open_that(|_| true)
    }

    fn open_that(&self, which: impl Fn(&Item) -> bool) -> Vec<usize> {
        let places = self.places(which);
        places.into_iter().filter(|place| self.standings[*place] == Standing::Open).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Seen::{Done, Nothing};
    use super::*;
    use proptest::prelude::*;

    const ITEM: Item = Item { is_held_back: false, can_go_back: true };

    fn beginning(items: usize) -> Beginning {
        Beginning { has_copies: false, has_endpoints: true, was_cut_short: false, items: vec![ITEM; items] }
    }

    fn failed(text: &str) -> Seen {
        Seen::Failed(text.to_owned())
    }

    fn each(answers: &[Result<&str, (&str, bool)>]) -> Seen {
        let answer = |a: &Result<&str, (&str, bool)>| match a {
            Ok(proof) => Ok((*proof).to_owned()),
            Err((text, is_refused)) => Err(Fault { text: (*text).to_owned(), is_refused: *is_refused }),
        };
        Seen::Each(answers.iter().map(answer).enumerate().collect())
    }

    /// Goes through the steps with what each came to; the steps in words, and the verdicts.
    fn played(beginning: Beginning, seen: &[Seen]) -> (String, Vec<Verdict>) {
        let mut transaction = Transaction::new(beginning);
        let mut words = Vec::new();
        let mut step = transaction.next(Nothing);
        for seen in seen {
            words.push(word(&step));
            step = transaction.next(seen.clone());
        }
        assert_eq!(step, Step::End, "after {words:?}");
        (words.join(" "), transaction.verdicts())
    }

    fn word(step: &Step) -> &'static str {
        match step {
            Step::Running => "running",
            Step::Live(Which::New, _) => "live",
            Step::Live(Which::Previous, _) => "live-back",
            Step::Copy(Which::New, _) => "copy",
            Step::Copy(Which::Previous, _) => "copy-back",
            Step::Check => "check",
            Step::Reload(_) => "reload",
            Step::Start => "start",
            Step::Look(_) => "look",
            Step::End => "end",
        }
    }

    #[test]
    fn the_usual_way() {
        let seen = [Done, Done, Done, each(&[Ok("443")])];
        let (steps, verdicts) = played(beginning(1), &seen);
        assert_eq!(steps, "running check reload look");
        assert_eq!(verdicts, [Ok("443".to_owned())]);

        let copies = Beginning { has_copies: true, ..beginning(1) };
        let seen = [Nothing, each(&[Ok("")]), Nothing, Done, each(&[Ok("443")])];
        assert_eq!(played(copies, &seen).0, "running copy check reload look");

        let blind = Beginning { has_endpoints: false, ..beginning(2) };
        let (steps, verdicts) = played(blind, &[Nothing, Nothing, Done]);
        assert_eq!((steps.as_str(), verdicts.len()), ("running check reload", 2));
        assert!(verdicts.iter().all(Result::is_ok));
    }

    #[test]
    fn one_that_does_not_run_is_left_alone_unless_it_was_ended_here() {
        let (steps, verdicts) = played(beginning(1), &[failed("it does not run")]);
        assert_eq!((steps.as_str(), &verdicts[0]), ("running", &Err("it does not run".to_owned())));

        // Where it reads copies it gets them, to be started with.
        let copies = Beginning { has_copies: true, ..beginning(2) };
        let seen = [failed("it does not run"), each(&[Ok(""), Err(("a link", false))])];
        let (steps, verdicts) = played(copies, &seen);
        assert_eq!(steps, "running copy");
        assert_eq!(verdicts, [Err("it does not run".to_owned()), Err("a link".to_owned())]);

        let cut = Beginning { was_cut_short: true, ..beginning(1) };
        let seen = [failed("it does not run"), Done, Done, each(&[Ok("443")])];
        let (steps, verdicts) = played(cut, &seen);
        assert_eq!(steps, "running check start look");
        assert!(verdicts[0].is_ok());
    }

    #[test]
    fn a_failing_test_puts_back_what_helps() {
        let (steps, verdicts) = played(beginning(1), &[Done, failed("line 3"), Done, Done]);
        assert_eq!(steps, "running check live-back check");
        let told = verdicts[0].clone().unwrap_err();
        assert!(told.contains("line 3") && told.contains("put back in `live`"), "{told}");

        let (steps, verdicts) = played(beginning(1), &[Done, failed("line 3"), Done, failed("line 3"), Done]);
        assert_eq!(steps, "running check live-back check live");
        assert!(verdicts[0].clone().unwrap_err().contains("the certificate is not the reason"));

        let copies = Beginning { has_copies: true, ..beginning(1) };
        let seen = [Done, each(&[Ok("")]), failed("line 3"), each(&[Ok("put back")])];
        let (steps, verdicts) = played(copies, &seen);
        assert_eq!(steps, "running copy check copy-back");
        assert!(verdicts[0].clone().unwrap_err().contains("the files that it had were put back"));

        let first = Item { is_held_back: false, can_go_back: false };
        let (steps, verdicts) =
            played(Beginning { items: vec![first], ..beginning(0) }, &[Done, failed("line 3")]);
        assert_eq!(steps, "running check");
        assert!(verdicts[0].clone().unwrap_err().contains("no previous version"));
    }

    #[test]
    fn one_that_was_held_back_is_tried_again() {
        let held = Item { is_held_back: true, can_go_back: true };
        let beginning = Beginning { items: vec![ITEM, held], ..beginning(0) };
        let mut transaction = Transaction::new(beginning);
        transaction.next(Nothing);
        assert_eq!(transaction.next(Done), Step::Live(Which::New, vec![1]));
    }

    #[test]
    fn each_certificate_is_judged_by_itself() {
        let seen = [Done, Done, Done, each(&[Ok("443"), Err(("the old one", false))])];
        let (_, verdicts) = played(beginning(2), &seen);
        assert_eq!(verdicts, [Ok("443".to_owned()), Err("the old one".to_owned())]);

        // What cannot be copied holds up nobody else, and stays lost whatever comes after.
        let copies = Beginning { has_copies: true, ..beginning(2) };
        let mut transaction = Transaction::new(copies);
        transaction.next(Nothing);
        transaction.next(Done);
        transaction.next(each(&[Err(("a link", false)), Ok("")]));
        assert_eq!(transaction.next(Done), Step::Reload(vec![1]));
        assert_eq!(transaction.next(Done), Step::Look(vec![1]));
        assert_eq!(transaction.next(Seen::Each(vec![(1, Ok("443".to_owned()))])), Step::End);
        assert_eq!(transaction.verdicts(), [Err("a link".to_owned()), Ok("443".to_owned())]);
    }

    #[test]
    fn one_that_died_is_started_again() {
        let refused = each(&[Err(("refused", true))]);
        let seen = [Done, Done, Done, refused.clone(), failed("gone"), Done, each(&[Ok("443")])];
        let (steps, verdicts) = played(beginning(1), &seen);
        assert_eq!(steps, "running check reload look running start look");
        assert!(verdicts[0].is_ok());

        // It runs, and does not listen there: a start would be of no use.
        let (steps, verdicts) = played(beginning(1), &[Done, Done, Done, refused.clone(), Done]);
        assert_eq!(steps, "running check reload look running");
        assert_eq!(verdicts, [Err("refused".to_owned())]);

        // A reload that failed has ended nothing.
        let (steps, verdicts) = played(beginning(1), &[Done, Done, failed("busy"), Done]);
        assert_eq!(steps, "running check reload running");
        assert_eq!(verdicts, [Err("busy".to_owned())]);

        // It does not start with the new one.
        let seen = [Done, Done, Done, refused.clone(), failed("gone"), failed("cannot load key"), Done, Done];
        let (steps, verdicts) = played(beginning(1), &seen);
        assert_eq!(steps, "running check reload look running start live-back start");
        let told = verdicts[0].clone().unwrap_err();
        assert!(told.contains("cannot load key") && told.contains("started again"), "{told}");

        let seen = [Done, Done, Done, refused, failed("gone"), failed("cannot"), Done, failed("cannot")];
        let told = played(beginning(1), &seen).1[0].clone().unwrap_err();
        assert!(told.contains("THE SERVER IS DOWN"), "{told}");
    }

    fn any_seen(items: usize) -> impl Strategy<Value = Seen> {
        let answer = prop_oneof![
            Just(Ok("ok".to_owned())),
            Just(Err(Fault { text: "wrong".to_owned(), is_refused: false })),
            Just(Err(Fault { text: "refused".to_owned(), is_refused: true })),
        ];
        prop_oneof![
            Just(Done),
            Just(Nothing),
            Just(Seen::Failed("failed".to_owned())),
            proptest::collection::vec(answer, items)
                .prop_map(|answers| Seen::Each(answers.into_iter().enumerate().collect())),
        ]
    }

    proptest! {
        /// Whatever happens: it ends, each item gets a verdict, nothing is reloaded after a failed test, and
        /// `live` leads where the verdict says.
        #[test]
        fn it_ends_and_says_so(
            has_copies: bool,
            has_endpoints: bool,
            was_cut_short: bool,
            items in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..4),
            seen in proptest::collection::vec(any_seen(3), 20),
        ) {
            let items: Vec<_> =
                items.iter().map(|(h, c)| Item { is_held_back: *h, can_go_back: *c }).collect();
            let count = items.len();
            let mut transaction =
                Transaction::new(Beginning { has_copies, has_endpoints, was_cut_short, items });
            let mut step = transaction.next(Nothing);
            let (mut test_failed, mut ended) = (false, false);
            for seen in seen {
                test_failed |= step == Step::Check && matches!(seen, Seen::Failed(_));
                if has_copies {
                    prop_assert!(!matches!(step, Step::Live(Which::Previous, _)));
                } else {
                    prop_assert!(!matches!(step, Step::Copy(..)));
                }
                step = transaction.next(seen);
                prop_assert!(!(test_failed && matches!(step, Step::Reload(_) | Step::Start)));
                ended |= step == Step::End;
            }
            prop_assert!(ended);
            let verdicts = transaction.verdicts();
            prop_assert_eq!(verdicts.len(), count);
            if test_failed {
                prop_assert!(verdicts.iter().all(Result::is_err));
            }
        }
    }
}
