//! Random histories of the ledger beside a plain model of the CA.

use std::thread;

use super::*;
use crate::config::{Issuer, RateLimits};

const HISTORIES: u64 = 1_000_000;
const THREADS: u64 = 2;

/// SplitMix64: the same histories at every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What the CA has counted, as the list that it is: when, and whether nobody had asked for it.
#[derive(Default)]
struct Counted {
    failures: Vec<(i64, bool)>,
    certificates: Vec<i64>,
}

/// Tokens that are left after taking one at each of these moments, refilled bit by bit; negative when the
/// CA would have refused.
pub(super) fn lowest_level(moments: &[i64], burst: i64, every: i64) -> i64 {
    let (mut level, mut before, mut lowest) = (burst * every, i64::MIN / 4, burst * every);
    for &at in moments {
        level = (level + (at - before)).min(burst * every) - every;
        before = at;
        lowest = lowest.min(level);
    }
    lowest
}

impl Counted {
    fn check(&self, seed: u64) {
        let all: Vec<i64> = self.failures.iter().map(|(at, _)| *at).collect();
        assert!(lowest_level(&all, 5, 12 * MINUTE) >= 0, "the CA locks out history {seed}: {all:?}");
        assert!(lowest_level(&self.certificates, 5, 34 * HOUR) >= 0, "too many of a set in history {seed}");
        let unattended = self.failures.iter().filter(|(_, forced)| !forced).map(|(at, _)| *at);
        let unattended: Vec<i64> = unattended.collect();
        let in_an_hour = unattended.windows(5).find(|five| five[4] - five[0] <= HOUR);
        assert!(in_an_hour.is_none(), "5 in an hour in history {seed}: {in_an_hour:?}");
    }
}

/// A few attempts for one name, forced or not, at odd moments; some end well, some badly, some in a crash,
/// some overlap.
fn history(seed: u64, limits: &Limits, name: &[Identifier]) -> (usize, usize) {
    let mut random = Random(seed);
    let mut ledger = Ledger::new();
    let mut counted = Counted::default();
    let mut now = 1_795_438_800_000;
    let mut open: Vec<(Charge, bool, i64)> = Vec::new();
    // No attempt takes an hour.
    let longest = |open: &[(Charge, bool, i64)], to: i64| {
        open.iter()
            .map(|(_, _, begun_at)| begun_at + LONGEST_ATTEMPT - 10 * MINUTE)
            .min()
            .map_or(to, |end| to.min(end))
    };
    let (mut begun, mut refused) = (0, 0);
    // Some are in a hurry, some are not.
    let pause = [1, MINUTE, 10 * MINUTE, 40 * MINUTE][random.below(4)];
    for _ in 0..3 + random.below(5) {
        let later = now + i64::try_from(random.below(usize::try_from(pause).unwrap())).unwrap();
        now = longest(&open, later).max(now);
        let forced = random.one_in(3);
        let ask =
            Ask { issuer: "c", account: "a", force: forced, is_renewal: true, ..Ask::for_identifiers(name) };
        match ledger.begin(&ask, limits, moment(now)) {
            Ok(charge) => {
                begun += 1;
                open.push((charge, forced, now));
            }
            Err(refusal) => {
                refused += 1;
                assert!(refusal.until > moment(now));
                if random.one_in(2) {
                    now = longest(&open, milliseconds(refusal.until)).max(now);
                }
            }
        }
        if random.one_in(6) {
            // A crash: what was under way may have failed at any moment until now.
            for (_, forced, _) in open.drain(..) {
                counted.failures.push((now, forced));
            }
            now += i64::try_from(random.below(60_000)).unwrap();
            ledger = Ledger::restored(ledger.file(moment(now)), moment(now));
        }
        while let Some((charge, forced, _)) = (!random.one_in(4)).then(|| open.pop()).flatten() {
            let heard = now + i64::try_from(random.below(20_000)).unwrap();
            let happened = Happened { asked: true, ordered: true, ..Happened::default() };
            let happened = match random.below(8) {
                0 => Happened::default(),
                1 => {
                    counted.certificates.push(now);
                    Happened { obtained: true, ..happened }
                }
                _ => {
                    counted.failures.push((now, forced));
                    Happened { failed: name.to_vec(), ..happened }
                }
            };
            now = heard;
            ledger.settle(charge, &happened, moment(now));
        }
    }
    counted.check(seed);
    (begun, refused)
}

#[test]
fn a_million_histories_are_never_over_a_limit() {
    let run = |first: u64| {
        let limits = Limits::of(&Issuer::LetsEncrypt, &RateLimits::default());
        let name = ["www.null-i.net".parse().unwrap()];
        let (mut histories, mut begun, mut refused) = (0, 0, 0);
        for seed in (first..HISTORIES).step_by(usize::try_from(THREADS).unwrap()) {
            let (b, r) = history(seed, &limits, &name);
            (histories, begun, refused) = (histories + 1, begun + b, refused + r);
        }
        (histories, begun, refused)
    };
    let totals = thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || run(first))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let sum = |of: fn(&(u64, usize, usize)) -> u64| totals.iter().map(of).sum::<u64>();
    assert_eq!(sum(|t| t.0), 1_000_000);
    // Both happen often enough to mean something.
    assert!(sum(|t| t.1 as u64) > HISTORIES && sum(|t| t.2 as u64) > HISTORIES / 3);
}

#[test]
fn the_model_finds_what_is_over() {
    assert!(lowest_level(&[0; 5], 5, 12 * MINUTE) >= 0);
    assert!(lowest_level(&[0; 6], 5, 12 * MINUTE) < 0);
    assert!(lowest_level(&[0, 0, 0, 0, 0, 12 * MINUTE], 5, 12 * MINUTE) >= 0);
    assert!(lowest_level(&[0, 0, 0, 0, 0, 12 * MINUTE - 1], 5, 12 * MINUTE) < 0);
}
