//! Random histories of the ledger beside a plain model of two CAs: Let's Encrypt, which leaves renewals out of
//! some of its counts, and one with configured limits, which counts everything.

use std::thread;

use super::*;
use crate::config::{Issuer, Rate, RateLimits};

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

/// A CA: burst and refill of each of its buckets, and whether it spares renewals.
struct Model {
    limits: Limits,
    failures: (i64, i64),
    certificates_per_set: (i64, i64),
    certificates_per_domain: (i64, i64),
    orders: (i64, i64),
    spares_renewals: bool,
}

impl Model {
    fn lets_encrypt() -> Self {
        Self {
            limits: Limits::of(&Issuer::LetsEncrypt, &RateLimits::default()),
            failures: (5, 12 * MINUTE),
            certificates_per_set: (5, 34 * HOUR),
            certificates_per_domain: (50, 202 * MINUTE),
            orders: (300, 36 * 1000),
            spares_renewals: true,
        }
    }

    fn configured() -> Self {
        let rate = |count, seconds| Some(Rate::Limited { count, per: Duration::from_secs(seconds) });
        let configured = RateLimits {
            orders: rate(2, 3600),
            certificates_per_domain: rate(2, 7 * 86_400),
            certificates_per_set: rate(3, 7 * 86_400),
            ..RateLimits::default()
        };
        Self {
            limits: Limits::of(&Issuer::Directory("https://ca.example/d".parse().unwrap()), &configured),
            failures: (5, 12 * MINUTE),
            certificates_per_set: (3, 56 * HOUR),
            certificates_per_domain: (2, 84 * HOUR),
            orders: (2, 30 * MINUTE),
            spares_renewals: false,
        }
    }
}

/// What the CA has counted, as the list that it is: when, and whether nobody had asked for it.
#[derive(Default)]
struct Counted {
    failures: Vec<(i64, bool)>,
    per_set: Vec<i64>,
    per_domain: Vec<i64>,
    orders: Vec<i64>,
}

/// An order as the CA sees it.
#[derive(Clone, Copy)]
struct Order {
    is_renewal: bool,
    /// The CA has suggested it, and takes what it says that it replaces.
    is_suggested: bool,
    /// Nobody has asked for it.
    forced: bool,
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
    fn order(&mut self, at: i64, order: Order, model: &Model) {
        if !(model.spares_renewals && order.is_renewal) {
            self.orders.push(at);
        }
    }

    fn certificate(&mut self, at: i64, order: Order, model: &Model) {
        if !(model.spares_renewals && order.is_renewal) {
            self.per_domain.push(at);
        }
        if !(model.spares_renewals && order.is_suggested) {
            self.per_set.push(at);
        }
    }

    fn check(&self, seed: u64, model: &Model) {
        let all: Vec<i64> = self.failures.iter().map(|(at, _)| *at).collect();
        for (what, moments, (burst, every)) in [
            ("failures", &all, model.failures),
            ("certificates of a set", &self.per_set, model.certificates_per_set),
            ("certificates of a domain", &self.per_domain, model.certificates_per_domain),
            ("orders", &self.orders, model.orders),
        ] {
            assert!(
                lowest_level(moments, burst, every) >= 0,
                "the CA locks out history {seed} for its {what}: {moments:?}"
            );
        }
        let unattended = self.failures.iter().filter(|(_, forced)| !forced).map(|(at, _)| *at);
        let unattended: Vec<i64> = unattended.collect();
        let in_an_hour = unattended.windows(5).find(|five| five[4] - five[0] <= HOUR);
        assert!(in_an_hour.is_none(), "5 in an hour in history {seed}: {in_an_hour:?}");
    }
}

/// A few attempts for one name, forced or not, at odd moments; some end well, some badly, some in a crash,
/// some overlap.
fn history(seed: u64, model: &Model, name: &[Identifier]) -> (usize, usize) {
    let mut random = Random(seed);
    let mut ledger = Ledger::new();
    let mut counted = Counted::default();
    let mut now = 1_795_438_800_000;
    let mut open: Vec<(Charge, Order, i64)> = Vec::new();
    // No attempt takes an hour.
    let longest = |open: &[(Charge, Order, i64)], to: i64| {
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
        let is_renewal = !random.one_in(3);
        let is_suggested = is_renewal && random.one_in(4);
        let order = Order { is_renewal, is_suggested, forced: random.one_in(3) };
        let ask = Ask {
            issuer: "c",
            account: "a",
            force: order.forced,
            is_renewal,
            by_renewal_information: is_suggested,
            ..Ask::for_identifiers(name)
        };
        match ledger.begin(&ask, &model.limits, moment(now)) {
            Ok(charge) => {
                begun += 1;
                open.push((charge, order, now));
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
            for (_, order, _) in open.drain(..) {
                counted.order(now, order, model);
                counted.failures.push((now, order.forced));
            }
            now += i64::try_from(random.below(60_000)).unwrap();
            ledger = Ledger::restored(ledger.file(moment(now)), moment(now));
        }
        while let Some((charge, order, _)) = (!random.one_in(4)).then(|| open.pop()).flatten() {
            let heard = now + i64::try_from(random.below(20_000)).unwrap();
            let exempt = order.is_suggested;
            let happened = Happened { asked: true, ordered: true, exempt, ..Happened::default() };
            let happened = match random.below(8) {
                0 => Happened::default(),
                1 | 2 => {
                    counted.order(now, order, model);
                    counted.certificate(now, order, model);
                    Happened { obtained: true, ..happened }
                }
                _ => {
                    counted.order(now, order, model);
                    counted.failures.push((now, order.forced));
                    Happened { failed: name.to_vec(), ..happened }
                }
            };
            now = heard;
            ledger.settle(charge, &happened, moment(now));
        }
    }
    counted.check(seed, model);
    (begun, refused)
}

#[test]
fn a_million_histories_are_never_over_a_limit() {
    let run = |first: u64| {
        let models = [Model::lets_encrypt(), Model::configured()];
        let name = ["www.null-i.net".parse().unwrap()];
        let (mut histories, mut begun, mut refused) = (0, 0, 0);
        for seed in (first..HISTORIES).step_by(usize::try_from(THREADS).unwrap()) {
            let model = &models[usize::try_from(seed / THREADS % 2).unwrap()];
            let (b, r) = history(seed, model, &name);
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
