//! Sleeping laptops, clocks that jump, and CAs that suggest nonsense: a machine that goes through a
//! certificate's life by these decisions, and the orders that it sends.

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ca {
    WithoutAri,
    /// The hundredth before and after the fraction, as Let's Encrypt has it.
    WithAri,
    /// Every certificate was to be renewed half an hour ago.
    AlwaysPast,
    /// Every certificate comes with a tenth of its lifetime left, and without renewal information.
    Old,
}

/// From one true moment to another the clock is off, or the machine asleep.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    None,
    Ahead(Duration),
    Behind(Duration),
    Asleep,
}

struct Run {
    ca: Ca,
    lifetime: Duration,
    trouble: Trouble,
    from: SystemTime,
    to: SystemTime,
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * 20_000
}

impl Run {
    /// What the machine's clock shows; `None` while it sleeps.
    fn clock(&self, moment: SystemTime) -> Option<SystemTime> {
        if moment < self.from || moment >= self.to {
            return Some(moment);
        }
        match self.trouble {
            Trouble::None => Some(moment),
            Trouble::Ahead(by) => Some(moment + by),
            Trouble::Behind(by) => Some(moment - by),
            Trouble::Asleep => None,
        }
    }

    fn issue(&self, moment: SystemTime) -> (SystemTime, SystemTime) {
        let start = match self.ca {
            Ca::Old => moment - self.lifetime.mul_f64(0.9),
            _ => moment,
        };
        (start, start + self.lifetime)
    }

    fn window(&self, (start, end): (SystemTime, SystemTime), moment: SystemTime) -> Option<Window> {
        let ideal = renew_at(start, end, 0.0);
        match self.ca {
            Ca::WithoutAri | Ca::Old => None,
            Ca::WithAri => choose(ideal - self.lifetime / 100, ideal + self.lifetime / 100, 0.3),
            Ca::AlwaysPast => choose(moment - HOUR, moment - HOUR / 2, 0.3),
        }
    }

    /// The true moments of all orders until `end`, looking at the clock 400 times in a lifetime. The
    /// first certificate is obtained at the start, in order.
    fn orders(&self, end: SystemTime) -> Vec<SystemTime> {
        let mut validity = self.issue(start());
        let mut obtained_at = start();
        let mut window = self.window(validity, start());
        let mut kept = patience(None, start(), validity.0, validity.1);
        let (mut next_ask, mut moment, mut orders) = (start() + self.lifetime / 10, start(), Vec::new());
        while moment < end {
            moment += self.lifetime / 400;
            let Some(now) = self.clock(moment) else { continue };
            if is_time_to_ask(Some(next_ask), validity.1, now) {
                window = self.window(validity, moment);
                next_ask = ask_again(now, None, self.lifetime, 0, 0.5);
            }
            let known = Known {
                validity: Some(validity),
                obtained_at: Some(obtained_at),
                patience: Some(kept),
                window,
                jitter: 0.5,
                ..Known::default()
            };
            if let Decision::Order(_) = decide(&known, now) {
                orders.push(moment);
                validity = self.issue(moment);
                obtained_at = now;
                window = self.window(validity, moment);
                kept = patience(Some(kept), now, validity.0, validity.1);
                next_ask = ask_again(now, None, self.lifetime, 0, 0.5);
            }
        }
        orders
    }
}

const LIFETIMES: [Duration; 6] = [
    Duration::from_secs(300),
    Duration::from_secs(6 * 3600),
    Duration::from_secs(2 * 86_400),
    Duration::from_secs(160 * 3600),
    Duration::from_secs(45 * 86_400),
    Duration::from_secs(398 * 86_400),
];

#[test]
fn a_laptop_that_wakes_orders_once() {
    for lifetime in LIFETIMES {
        for ca in [Ca::WithoutAri, Ca::WithAri] {
            for (from, to) in [(0.3, 0.8), (0.3, 0.99), (0.3, 1.5), (0.3, 20.0)] {
                let (from, to) = (start() + lifetime.mul_f64(from), start() + lifetime.mul_f64(to));
                let run = Run { ca, lifetime, trouble: Trouble::Asleep, from, to };
                let orders = run.orders(to + lifetime / 4);
                assert_eq!(orders.len(), 1, "{ca:?} {lifetime:?} {from:?}");
                assert!(orders[0] <= to + lifetime / 200, "it orders as soon as it wakes");
            }
        }
    }
}

/// A jump that is set right again, and one that stays: one order at most for each.
#[test]
fn a_clock_that_jumps_causes_one_order_at_most() {
    for lifetime in LIFETIMES {
        for ca in [Ca::WithoutAri, Ca::WithAri] {
            for by in [DAY, DAY * 3650] {
                for trouble in [Trouble::Ahead(by), Trouble::Behind(by)] {
                    for age in [0.05, 0.2, 0.4] {
                        let from = start() + lifetime.mul_f64(age);
                        let to = from + lifetime / 10;
                        let run = Run { ca, lifetime, trouble, from, to };
                        let orders = run.orders(start() + lifetime.mul_f64(age + 0.3).min(lifetime * 2 / 5));
                        assert!(orders.len() <= 1, "{ca:?} {lifetime:?} {trouble:?} {age}: {orders:?}");
                        // And the life after it is as before.
                        let end = start() + lifetime * 8;
                        let calm = Run { trouble: Trouble::None, ..run }.orders(end).len();
                        assert!(run.orders(end).len() <= calm + 2, "{ca:?} {lifetime:?} {trouble:?} {age}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_clock_that_stays_ten_years_off_renews_as_often_as_a_right_one() {
    for lifetime in LIFETIMES {
        for ca in [Ca::WithoutAri, Ca::WithAri] {
            let (from, to, end) = (start() + lifetime / 5, start() + lifetime * 50, start() + lifetime * 10);
            let run = Run { ca, lifetime, trouble: Trouble::Ahead(DAY * 3650), from, to };
            let calm = Run { trouble: Trouble::None, ..run }.orders(end).len();
            let orders = run.orders(end).len();
            assert!((calm..=calm + 1).contains(&orders), "{ca:?} {lifetime:?}: {orders} for {calm}");
        }
    }
}

#[test]
fn a_ca_that_always_says_now_gets_one_order_in_a_quarter() {
    for lifetime in LIFETIMES {
        let run = Run { ca: Ca::AlwaysPast, lifetime, trouble: Trouble::None, from: start(), to: start() };
        let orders = run.orders(start() + lifetime * 5);
        assert!(orders[0] <= start() + lifetime / 200, "the first time it is believed at once");
        assert!((18..=21).contains(&orders.len()), "{lifetime:?}: {}", orders.len());
        let shortest = orders.windows(2).map(|pair| span(pair[0], pair[1])).min().unwrap();
        assert!(shortest >= lifetime / 5, "{lifetime:?}: {shortest:?}");
    }
}

#[test]
fn a_ca_that_sends_old_certificates_gets_no_storm() {
    for lifetime in LIFETIMES {
        let run = Run { ca: Ca::Old, lifetime, trouble: Trouble::None, from: start(), to: start() };
        let orders = run.orders(start() + lifetime);
        assert!(orders.len() <= 40, "{lifetime:?}: {}", orders.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any jump in either direction, at any age, for any time.
    #[test]
    fn no_clock_makes_a_storm(
        log in 300f64.ln()..34_387_200f64.ln(),
        ca in prop::sample::select(vec![Ca::WithoutAri, Ca::WithAri, Ca::AlwaysPast]),
        jump in 0f64.ln_1p()..315_360_000f64.ln_1p(),
        ahead in any::<bool>(),
        age in 0.0f64..2.0,
        lasts in 0.0f64..3.0,
    ) {
        let lifetime = Duration::from_secs_f64(log.exp());
        let by = Duration::from_secs_f64(jump.exp_m1());
        let trouble = if ahead { Trouble::Ahead(by) } else { Trouble::Behind(by) };
        let from = start() + lifetime.mul_f64(age);
        let run = Run { ca, lifetime, trouble, from, to: from + lifetime.mul_f64(lasts) };
        let orders = run.orders(start() + lifetime * 6);
        let (during, calm): (Vec<SystemTime>, Vec<SystemTime>) =
            orders.into_iter().partition(|at| run.from <= *at && *at < run.to);
        // One in a quarter of the lifetime, the two edges of the jump, and what is granted.
        prop_assert!(calm.len() <= 6 * 4 + 4, "{calm:?}");
        // A clock that is most of a lifetime ahead makes every certificate look old: one a day, or in a
        // sixteenth, until it is set right.
        let shortest = (lifetime / 16).min(DAY).mul_f64(0.99);
        let close = during.windows(2).filter(|pair| span(pair[0], pair[1]) < shortest).count();
        // What the CA asks for at once follows closely, and is paid for by the quarter after it.
        let granted = if ca == Ca::AlwaysPast { (lasts * 2.0) as usize + 1 } else { 0 };
        prop_assert!(close <= 1 + granted, "{during:?}");
    }
}
