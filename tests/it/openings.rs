//! `[[gate.opening]]`: what stands before the gate is open for an order and shut afterwards, whatever is killed,
//! seen from another machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use wicketgate::clock;

use crate::bed::hosts::{Hosts, Knock};
use crate::bed::process::{Process, Ran, children, run};
use crate::bed::random::Random;
use crate::bed::wicketgate::{Daemon, Setup, command};
use crate::bed::{Bed, PATIENCE, is_thorough, needs, until, until_within};

const NAME: &str = "www.example.test";
const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const ANSWER: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";
const NFTABLES: &str = "[[gate.opening]]\nnftables-set = \"inet wicketgate acme_open\"\nlease = \"10s\"\n";
const LEASE: Duration = Duration::from_secs(10);

/// Two machines, and a configuration with these openings for the one.
struct Rig {
    hosts: Hosts,
    bed: Bed,
    config: PathBuf,
}

impl Rig {
    fn new(openings: &str) -> Self {
        Self::with(openings, "")
    }

    fn with(openings: &str, more: &str) -> Self {
        let bed = Bed::new();
        let config = bed.write("wicketgate.toml", text(&bed, openings, more));
        Self { hosts: Hosts::start(), bed, config }
    }

    /// A daemon that has its certificate, and nothing is open any more.
    fn daemon(&self) -> Process {
        let daemon = self.start();
        daemon.wait_for_line("ready: ");
        until("the first order is over", || self.is_shut().then_some(()));
        daemon
    }

    fn start(&self) -> Process {
        Process::start("wicketgate run", &mut self.hosts.wicketgate(&self.config, &["run"]))
    }

    fn command(&self, arguments: &[&str]) -> Ran {
        run(&mut self.hosts.wicketgate(&self.config, arguments))
    }

    /// Has the door opened for another client.
    fn put(&self, ttl: &str) -> Ran {
        self.command(&["challenge", "put", NAME, TOKEN, ANSWER, "--ttl", ttl])
    }

    fn record(&self) -> PathBuf {
        self.bed.path("state/openings.json")
    }

    /// A certificate is there, and nothing is on record.
    fn is_shut(&self) -> bool {
        self.bed.path("state/live").join(NAME).exists() && !self.record().exists()
    }
}

fn text(bed: &Bed, openings: &str, more: &str) -> String {
    format!(
        "state-dir = {:?}\ngrace = \"2s\"\n[acme]\nissuer = \"embedded\"\nterms-agreed = true\n[gate]\nopen = \"during-orders\"\n\
         listen = [\"0.0.0.0:80\"]\n{openings}[admin]\nsocket = {:?}\n[[certificate]]\nhostnames = [{NAME:?}]\n{more}",
        bed.path("state"),
        bed.path("admin.sock")
    )
}

/// The daemon's helper for openings: without deploys and notices it has no other. Another process has started it.
fn helper(daemon: &Process) -> Pid {
    let starters = children(daemon.id());
    assert_eq!(starters.len(), 1);
    let helpers = children(starters[0].as_raw_nonzero().get().cast_unsigned());
    assert_eq!(helpers.len(), 1);
    helpers[0]
}

/// By commands that make and remove a file.
fn by_commands(bed: &Bed) -> (String, PathBuf) {
    let door = bed.path("door");
    let table = format!(
        "[[gate.opening]]\nopen = [\"touch\", {door:?}]\nclose = [\"rm\", \"-f\", {door:?}]\nlease = \"10s\"\n"
    );
    (table, door)
}

#[test]
fn the_filter_is_open_for_a_token_and_shut_afterwards() {
    needs!("root", "nft", "ip", "nsenter");
    let rig = Rig::new(NFTABLES);
    let daemon = rig.daemon();
    assert!(daemon.lines().iter().any(|line| line.contains("obtained a certificate")));
    assert_eq!(rig.hosts.knock(80), Knock::Silence);
    assert!(
        rig.command(&["status"]).stdout.contains("what stands before the gate ([[gate.opening]]) is shut")
    );
    rig.put("10m").expect_code(0);
    assert_eq!(rig.hosts.knock(80), Knock::Open);
    assert!(rig.command(&["status"]).stdout.contains("([[gate.opening]]) is open now"));
    let told = rig.command(&["openings", "list"]).expect_code(0).stdout;
    assert_eq!(told, "open: 80 in the nftables set `inet wicketgate acme_open`\n");
    let told = rig.command(&["verify", "--at", "127.0.0.1:1"]).expect_code(1).stdout;
    assert!(
        told.contains("what a packet filter does to others ([[gate.opening]]) is not seen here"),
        "{told}"
    );
    // Longer than a lease.
    let begun = clock::monotonic();
    while begun.elapsed() < LEASE + Duration::from_secs(2) {
        assert_eq!(rig.hosts.knock(80), Knock::Open, "after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    rig.command(&["challenge", "remove", TOKEN]).expect_code(0);
    assert_eq!(rig.hosts.knock(80), Knock::Open, "it does not linger");
    until("it is shut", || (rig.hosts.knock(80) == Knock::Silence).then_some(()));
    until("nothing is on record", || rig.is_shut().then_some(()));
    assert_eq!(rig.command(&["openings", "list"]).stdout, "nothing is open\n");
    // By hand, with the helper's own means.
    rig.put("10m").expect_code(0);
    let told = rig.command(&["openings", "close", "--force"]).expect_code(0).stdout;
    assert_eq!(told, "shut: 80 in the nftables set `inet wicketgate acme_open`\n");
    assert_eq!(rig.hosts.knock(80), Knock::Silence);
}

#[test]
fn whoever_is_killed_the_filter_is_shut_within_the_lease() {
    needs!("root", "nft", "ip", "nsenter");
    let rig = Rig::new(NFTABLES);
    type Kill = fn(&Process);
    let both: Kill = |daemon| {
        let helper = helper(daemon);
        // The helper first stands still: it would shut the door once its master is gone.
        kill_process(helper, Signal::STOP).unwrap();
        daemon.signal(Signal::KILL);
        kill_process(helper, Signal::KILL).unwrap();
    };
    let kills: [(&str, Kill, Duration); 4] = [
        ("the daemon", |daemon| daemon.signal(Signal::KILL), Duration::from_secs(4)),
        ("by a stop", |daemon| daemon.signal(Signal::TERM), Duration::from_secs(4)),
        ("both", both, LEASE),
        ("the daemon hangs", |daemon| daemon.signal(Signal::STOP), LEASE),
    ];
    for (what, kill, within) in kills {
        let mut daemon = rig.daemon();
        rig.put("10m").expect_code(0);
        assert_eq!(rig.hosts.knock(80), Knock::Open, "{what}");
        kill(&daemon);
        // The knock itself takes a while to find out.
        let limit = within + Duration::from_secs(2);
        until_within(limit, what, || (rig.hosts.knock(80) == Knock::Silence).then_some(()));
        if what == "both" {
            assert!(rig.record().exists(), "it was written down");
        } else {
            until_within(limit, "nothing is on record", || rig.is_shut().then_some(()));
        }
        if what == "the daemon hangs" {
            // It wakes up, and goes on where it was.
            daemon.signal(Signal::CONT);
            until("it is open again", || (rig.hosts.knock(80) == Knock::Open).then_some(()));
            rig.command(&["challenge", "remove", TOKEN]).expect_code(0);
            until("it is shut", || (rig.hosts.knock(80) == Knock::Silence).then_some(()));
            daemon.signal(Signal::TERM);
        }
        daemon.wait(Duration::from_secs(10));
    }
}

#[test]
fn a_new_helper_takes_the_place_of_one_that_was_killed() {
    needs!("root", "nft", "ip", "nsenter");
    let rig = Rig::new(NFTABLES);
    let daemon = rig.daemon();
    rig.put("10m").expect_code(0);
    kill_process(helper(&daemon), Signal::KILL).unwrap();
    let begun = clock::monotonic();
    while begun.elapsed() < LEASE + Duration::from_secs(2) {
        assert_eq!(rig.hosts.knock(80), Knock::Open, "after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    kill_process(helper(&daemon), Signal::KILL).unwrap();
    rig.command(&["challenge", "remove", TOKEN]).expect_code(0);
    until("it is shut", || (rig.hosts.knock(80) == Knock::Silence).then_some(()));
    until("nothing is on record", || rig.is_shut().then_some(()));
}

#[test]
fn a_reload_in_the_middle_does_not_end_the_lease() {
    needs!("root", "nft", "ip", "nsenter");
    let rig = Rig::new(NFTABLES);
    let daemon = rig.daemon();
    rig.put("10m").expect_code(0);
    // Not yet taken, and then taken.
    rig.bed.write("wicketgate.toml", text(&rig.bed, &NFTABLES.replace("10s", "11s"), ""));
    let begun = clock::monotonic();
    let mut is_taken = false;
    while clock::monotonic() - begun < 3 * LEASE {
        assert_eq!(rig.hosts.knock(80), Knock::Open, "after {:?}", clock::monotonic() - begun);
        if !is_taken && clock::monotonic() - begun > LEASE + Duration::from_secs(2) {
            rig.command(&["reload"]).expect_code(0);
            is_taken = true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(
        !daemon.lines().iter().any(|line| line.contains("could not be kept open")),
        "{:?}",
        daemon.lines()
    );
    // One that is broken meanwhile does not keep it open.
    rig.bed.write("wicketgate.toml", "broken");
    let admin = rig.bed.path("admin.sock");
    run(rig
        .hosts
        .command("curl")
        .args(["-sf", "-X", "DELETE", "--unix-socket"])
        .arg(admin)
        .arg(format!("http://x/challenges/{TOKEN}")))
    .expect_code(0);
    until("it is shut", || (rig.hosts.knock(80) == Knock::Silence).then_some(()));
    until("nothing is on record", || rig.is_shut().then_some(()));
}

#[test]
fn what_commands_opened_is_shut_by_whoever_comes_next() {
    needs!("root", "nft", "ip", "nsenter");
    let bed = Bed::new();
    let (table, door) = by_commands(&bed);
    let rig = Rig::new(&table);
    let told = rig.command(&["config", "check"]).expect_code(0).stdout;
    assert!(told.contains("note: opening 1 (`touch`) is shut by a command: should wicketgate"), "{told}");
    for by_hand in [true, false] {
        let mut daemon = rig.daemon();
        rig.put("10m").expect_code(0);
        assert!(door.exists());
        let helper = helper(&daemon);
        kill_process(helper, Signal::STOP).unwrap();
        daemon.signal(Signal::KILL);
        kill_process(helper, Signal::KILL).unwrap();
        daemon.wait(Duration::from_secs(10));
        // As if the machine had lost its power. What is configured may have changed since.
        assert!(door.exists() && rig.record().exists());
        rig.bed.write("wicketgate.toml", text(&rig.bed, "", ""));
        if by_hand {
            let told = rig.command(&["openings", "close"]).expect_code(0).stdout;
            assert_eq!(told, format!("shut: what `rm -f {}` shuts\n", door.display()));
        } else {
            let daemon = rig.start();
            daemon.wait_for_line("an opening was left open when wicketgate ended last; it is shut now");
            until("it is shut", || (!door.exists()).then_some(()));
        }
        assert!(!door.exists() && !rig.record().exists());
        rig.bed.write("wicketgate.toml", text(&rig.bed, &table, ""));
    }
}

#[test]
fn they_open_together_or_not_at_all() {
    needs!("root", "nft", "ip", "nsenter");
    let bed = Bed::new();
    let (table, door) = by_commands(&bed);
    for (second, says) in [
        ("open = [\"false\"]\nclose = [\"true\"]\n", "`false` failed (exit status: 1)"),
        (
            "open = [\"sleep\", \"1000\"]\nclose = [\"true\"]\ntimeout = \"1s\"\n",
            "`sleep 1000` did not end within 1 s and was stopped",
        ),
        ("nftables-set = \"inet wicketgate missing\"\n", "a word of nftables' own language is no name"),
        (
            "nftables-set = \"inet wicketgate acme_none\"\n",
            "is there a set `inet wicketgate acme_none`? deploy/nftables/wicketgate.nft makes one",
        ),
    ] {
        let rig = Rig::new(&format!("{table}[[gate.opening]]\n{second}"));
        let told = rig.command(&["renew"]).expect_code(1).text();
        assert!(told.contains("port 80 cannot be opened for the CA: [[gate.opening]] fails: "), "{told}");
        assert!(told.contains(says) && told.contains("; nothing is open"), "{told}");
        assert!(!door.exists() && !rig.record().exists());
        assert!(!rig.bed.path("state/live").join(NAME).exists());
    }
}

#[test]
fn what_fails_to_shut_is_an_alarm_and_tried_until_it_is_shut() {
    needs!("root", "nft", "ip", "nsenter");
    let bed = Bed::new();
    let (door, works, notices) = (bed.path("door"), bed.path("works"), bed.path("notices"));
    let close = format!(
        "test -e {0} || {{ echo the cloud says no >&2; exit 1; }}; rm -f {1}",
        works.display(),
        door.display()
    );
    let close = bed.script("close", &close);
    let tell = bed.script("tell", &format!("cat >>{0}; echo >>{0}", notices.display()));
    let table =
        format!("[[gate.opening]]\nopen = [\"touch\", {door:?}]\nclose = [{close:?}]\nlease = \"10s\"\n");
    fs::write(&works, "").unwrap();
    let rig = Rig::with(&table, &format!("[notify]\ncommand = [{tell:?}]\n"));
    let daemon = rig.daemon();
    rig.put("10m").expect_code(0);
    fs::remove_file(&works).unwrap();
    rig.command(&["challenge", "remove", TOKEN]).expect_code(0);
    daemon.wait_for_line("AN OPENING IS NOT SHUT: ");
    assert!(door.exists() && rig.record().exists());
    let told = rig.command(&["status"]).stdout;
    assert!(
        told.contains("AN OPENING BEFORE THE GATE IS NOT SHUT: ") && told.contains("the cloud says no"),
        "{told}"
    );
    let told = rig.command(&["openings", "close"]).expect_code(1).text();
    assert!(told.contains("is still open: ") && told.contains("the cloud says no"), "{told}");
    let notice = until("somebody is told", || {
        let text = fs::read_to_string(&notices).unwrap_or_default();
        text.lines().find(|line| line.contains("left-open")).map(str::to_owned)
    });
    assert!(notice.contains("what was opened for an order cannot be shut"), "{notice}");
    fs::write(&works, "").unwrap();
    until("it is shut after all", || (!door.exists() && rig.is_shut()).then_some(()));
    drop(daemon);

    // Without a daemon, the one who ran it is told by the exit code as well.
    fs::remove_file(&works).unwrap();
    let mut renew = rig.hosts.wicketgate(&rig.config, &["renew", "--force"]);
    let (path, mended) = (works.clone(), std::thread::spawn(|| std::thread::sleep(Duration::from_secs(4))));
    let mending = std::thread::spawn(move || {
        mended.join().unwrap();
        fs::write(path, "").unwrap();
    });
    let ran = run(&mut renew).expect_code(0);
    mending.join().unwrap();
    assert!(ran.text().contains("AN OPENING IS NOT SHUT: "), "{}", ran.text());
    assert!(!door.exists() && rig.is_shut());
}

#[test]
fn a_planted_record_is_not_believed() {
    needs!("root", "nft", "ip", "nsenter");
    let rig = Rig::new(NFTABLES);
    let ran = rig.bed.path("ran");
    fs::create_dir(rig.bed.path("state")).unwrap();
    crate::bed::set_mode(&rig.bed.path("state"), 0o700);
    let planted = format!(r#"[{{"command":{{"close":["touch",{ran:?}],"environment":{{}},"timeout":5}}}}]"#);
    fs::write(rig.record(), planted).unwrap();
    std::os::unix::fs::chown(rig.record(), Some(65534), None).unwrap();
    let told = rig.command(&["openings", "close"]).expect_code(1).text();
    assert!(
        told.contains("belongs to uid 65534, not to uid 0") && told.contains("and remove the file"),
        "{told}"
    );
    let daemon = rig.start();
    daemon.wait_for_line("AN OPENING IS NOT SHUT: ");
    daemon.wait_for_line("ready: ");
    assert!(!ran.exists());
    // It is not written over either: it may be what root has to shut.
    daemon.wait_for_line("[[gate.opening]] fails: ");
    assert!(Path::new(&rig.record()).exists() && !ran.exists());
}

/// The gate, its helper, or both, are killed at random moments of an order, and it is measured from outside when the
/// filter drops what comes.
#[test]
fn killed_at_random_moments_it_is_shut_within_the_lease() {
    needs!("root", "nft", "ip", "nsenter");
    let is_thorough = is_thorough();
    let (rigs, kills) = if is_thorough { (20, 50) } else { (2, 3) };
    let seed: u64 = 0x5eed;
    let each: Vec<_> =
        (0..rigs).map(|n| std::thread::spawn(move || kills_at_random(seed + n, kills))).collect();
    // All of them are awaited, so that none leaves anything behind where another one fails.
    let joined: Vec<_> = each.into_iter().map(std::thread::JoinHandle::join).collect();
    let found: Vec<_> = joined.into_iter().flat_map(Result::unwrap).collect();
    let open: Vec<_> = found.iter().filter(|(was_open, _)| *was_open).collect();
    let longest = found.iter().map(|(_, after)| *after).max().unwrap();
    eprintln!(
        "{} kills, {} while the filter was open: shut after {longest:?} at most, the lease being {LEASE:?}",
        found.len(),
        open.len()
    );
    assert!(longest <= LEASE + Duration::from_secs(1), "{longest:?}");
    assert!(!is_thorough || open.len() > 200, "the kills come too early or too late");
}

/// Of each kill, whether the filter was open, and how long after it was shut.
fn kills_at_random(seed: u64, kills: usize) -> Vec<(bool, Duration)> {
    let rig = Rig::new(NFTABLES);
    let mut random = Random(seed);
    let one = |_| {
        let _ = fs::remove_dir_all(rig.bed.path("state"));
        let mut renew =
            Process::start("wicketgate renew", &mut rig.hosts.wicketgate(&rig.config, &["renew"]));
        until("there is work", || rig.bed.path("state").exists().then_some(()));
        std::thread::sleep(Duration::from_millis(random.below(300) as u64));
        let victim = random.below(3);
        let pid = renew.id();
        let helpers = children(pid);
        let was_open = rig.hosts.knock(80) != Knock::Silence;
        if victim != 0 {
            for helper in &helpers {
                let _ = kill_process(*helper, Signal::STOP);
            }
        }
        let renewing = Pid::from_raw(pid.cast_signed()).unwrap();
        if victim != 1 {
            // It may have come to its end already.
            let _ = kill_process(renewing, Signal::KILL);
        }
        for helper in helpers.iter().filter(|_| victim != 0) {
            let _ = kill_process(*helper, Signal::KILL);
        }
        let killed = clock::monotonic();
        if victim == 1 {
            renew.wait(Duration::from_secs(60));
        }
        until_within(Duration::from_secs(30), "it is shut", || {
            (rig.hosts.knock(80) == Knock::Silence).then_some(())
        });
        // Of one that went on, since its helper alone was killed, what counts is that it shut the door as it ended.
        let after = if victim == 1 { Duration::ZERO } else { killed.elapsed() };
        if victim != 1 {
            renew.wait(Duration::from_secs(10));
        }
        (was_open, after)
    };
    (0..kills).map(one).collect()
}

/// What was opened is shut whatever has become of the configuration, and is left to a daemon that holds it.
#[test]
fn close_goes_by_the_record_and_not_by_the_configuration() {
    let bed = Bed::new();
    let open = bed.path("door");
    let setup = Setup::embedded(&bed)
        .without_front()
        .tables(&format!("[[gate.opening]]\nopen = [\"touch\", {open:?}]\nclose = [\"rm\", {open:?}]\n"));
    let config =
        bed.write("wicketgate.toml", setup.text().replace("[gate]\n", "[gate]\nopen = \"during-orders\"\n"));
    let mut daemon = Daemon::start(&config);
    daemon.process.wait_for_line("ready: ");
    let by = |arguments: &[&str]| run(command(&config).args(arguments));
    let mut relay = Process::start(
        "relay",
        command(&config).args(["challenge", "relay", "--port", "1", "--", "sleep", "60"]),
    );
    until("it is open", || open.exists().then_some(()));
    let told = by(&["openings", "close"]).expect_code(0).stdout;
    assert!(told.contains("holds them open for an order") && open.exists(), "{told}");
    // Everything dies, and the configuration is spoilt.
    let starter = children(daemon.process.id())[0];
    let helper = helper(&daemon.process);
    for pid in [helper, starter, Pid::from_raw(daemon.process.id().cast_signed()).unwrap()] {
        kill_process(pid, Signal::KILL).unwrap();
    }
    daemon.process.wait(PATIENCE);
    relay.signal(Signal::TERM);
    relay.wait(PATIENCE);
    assert!(open.exists());
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\nxx = \n")).unwrap();
    let told = by(&["openings", "close"]).expect_code(0).text();
    assert!(told.contains("only its state-dir is heeded") && !open.exists(), "{told}");
}

/// A daemon whose openings are these, and which opens them for a relay.
fn by_scripts(bed: &Bed, tables: &str) -> (PathBuf, Daemon) {
    let setup = Setup::embedded(bed).without_front().tables(tables);
    let text = setup.text().replace("[gate]\n", "[gate]\nopen = \"during-orders\"\n");
    let config = bed.write("wicketgate.toml", text);
    let daemon = Daemon::start(&config);
    daemon.process.wait_for_line("ready: ");
    (config, daemon)
}

fn put(config: &Path) -> Ran {
    run(command(config).args(["challenge", "put", NAME, TOKEN, ANSWER, "--ttl", "10m"]))
}

fn openings_of(config: &Path) -> String {
    let told = run(command(config).args(["status", "--json"])).expect_code(0).stdout;
    serde_json::from_str::<serde_json::Value>(&told).unwrap()["gate"]["openings"].to_string()
}

/// One that does its work and fails all the same, as if it were killed at its end: for the next order it is opened anew.
#[test]
fn what_may_have_been_shut_is_opened_again() {
    let bed = Bed::new();
    let (door, fails) = (bed.path("door"), bed.write("fails", ""));
    let close = bed.script("close", &format!("rm -f {door:?}; if [ -e {fails:?} ]; then exit 3; fi"));
    let table = format!("[[gate.opening]]\nopen = [\"touch\", {door:?}]\nclose = [{close:?}]\n");
    let (config, daemon) = by_scripts(&bed, &table);
    put(&config).expect_code(0);
    assert!(door.exists());
    run(command(&config).args(["challenge", "remove", TOKEN])).expect_code(0);
    daemon.process.wait_for_line("AN OPENING IS NOT SHUT");
    assert!(!door.exists() && openings_of(&config).contains("stuck"), "{}", openings_of(&config));
    put(&config).expect_code(0);
    assert!(door.exists(), "it is said to be open, and is not");
    fs::remove_file(&fails).unwrap();
    run(command(&config).args(["challenge", "remove", TOKEN])).expect_code(0);
    until("it is shut", || (openings_of(&config) == "\"shut\"").then_some(()));
    assert!(!door.exists());
}

/// The second cannot be opened, and the first not be shut again: that is no "shut".
#[test]
fn what_failed_to_open_and_to_be_shut_is_told() {
    let bed = Bed::new();
    let (door, fails) = (bed.path("door"), bed.write("fails", ""));
    let close = bed.script("close", &format!("if [ -e {fails:?} ]; then exit 3; fi; rm -f {door:?}"));
    let table = format!(
        "[[gate.opening]]\nopen = [\"touch\", {door:?}]\nclose = [{close:?}]\n\
         [[gate.opening]]\nopen = [\"false\"]\nclose = [\"true\"]\n"
    );
    let (config, _daemon) = by_scripts(&bed, &table);
    let told = put(&config).expect_code(1).text();
    assert!(told.contains("AND NOT ALL COULD BE SHUT AGAIN"), "{told}");
    assert!(openings_of(&config).contains("stuck") && door.exists(), "{}", openings_of(&config));
    fs::remove_file(&fails).unwrap();
    until("it is shut", || (openings_of(&config) == "\"shut\"").then_some(()));
    assert!(!door.exists());
}
