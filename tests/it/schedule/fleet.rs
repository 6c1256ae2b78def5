//! A hundred thousand certificates in one scheduler: a heap of their next moments, and a CA that signs at
//! once. The benchmark goes through the same year.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use wicketgate::renewal::schedule::{
    Decision, Known, Window, decide, jitter_of, keep_or_choose, patience, renew_at,
};

const HOUR: Duration = Duration::from_secs(3600);
const LIFETIME: Duration = Duration::from_secs(45 * 86_400);

/// How the fleet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Obtained one after the other, over the time after which each is renewed.
    Evenly,
    /// All within one hour.
    SameHour,
}

/// What the scheduler keeps about one certificate.
struct Kept {
    validity: (SystemTime, SystemTime),
    obtained_at: SystemTime,
    patience: SystemTime,
    window: Option<Window>,
    jitter: f64,
}

/// What is in the heap.
type Next = Reverse<(SystemTime, u32)>;

pub(crate) struct Fleet {
    kept: Vec<Kept>,
    next: BinaryHeap<Next>,
    /// The CA suggests windows of a fiftieth of the lifetime, as Let's Encrypt does.
    ari: bool,
}

/// A year of it.
pub(crate) struct Year {
    /// Orders in each of its hours.
    pub(crate) per_hour: Vec<u32>,
    /// How often it was decided.
    pub(crate) decisions: u64,
}

impl Fleet {
    /// Bytes that the scheduler keeps for each certificate.
    pub(crate) const BYTES_PER_CERTIFICATE: usize = size_of::<Kept>() + size_of::<Next>();

    pub(crate) fn new(count: u32, start: Start, ari: bool) -> Self {
        let mut fleet = Self { kept: Vec::new(), next: BinaryHeap::new(), ari };
        for i in 0..count {
            let part = f64::from(i) / f64::from(count);
            let jitter = jitter_of(&format!("host{i}.example.net"));
            let (_, due) = fleet.issue(beginning(), None, jitter);
            let age = match start {
                Start::Evenly => due.duration_since(beginning()).unwrap_or_default().mul_f64(part),
                Start::SameHour => HOUR.mul_f64(part),
            };
            let (kept, due) = fleet.issue(beginning() - age, None, jitter);
            fleet.kept.push(kept);
            fleet.next.push(Reverse((due, i)));
        }
        fleet
    }

    /// A certificate, and when it will be due.
    fn issue(&self, moment: SystemTime, before: Option<SystemTime>, jitter: f64) -> (Kept, SystemTime) {
        // As Let's Encrypt dates them.
        let not_before = moment - HOUR;
        let not_after = not_before + LIFETIME;
        let ideal = renew_at(not_before, not_after, 0.0);
        let (from, to) = (ideal - LIFETIME / 100, ideal + LIFETIME / 100);
        let kept = Kept {
            validity: (not_before, not_after),
            obtained_at: moment,
            patience: patience(before, moment, not_before, not_after),
            window: self.ari.then(|| keep_or_choose(None, from, to, jitter)).flatten(),
            jitter,
        };
        let Decision::Wait { at, .. } = decide(&kept.known(), moment) else { panic!("due when it came") };
        (kept, at)
    }

    /// Goes through a year, as fast as it can.
    pub(crate) fn year(&mut self) -> Year {
        const HOURS: usize = 365 * 24;
        let mut year = Year { per_hour: vec![0; HOURS], decisions: 0 };
        while let Some(Reverse((now, i))) = self.next.pop() {
            let hour = now.duration_since(beginning()).map_or(0, |since| since.as_secs() / 3600) as usize;
            if hour >= HOURS {
                self.next.push(Reverse((now, i)));
                break;
            }
            let place = i as usize;
            let reason = decide(&self.kept[place].known(), now);
            assert!(matches!(reason, Decision::Order(_)), "{reason:?}");
            year.per_hour[hour] += 1;
            let Kept { patience, jitter, .. } = self.kept[place];
            let (kept, due) = self.issue(now, Some(patience), jitter);
            self.kept[place] = kept;
            year.decisions += 2;
            self.next.push(Reverse((due, i)));
        }
        year
    }
}

impl Kept {
    fn known(&self) -> Known<'_> {
        Known {
            validity: Some(self.validity),
            obtained_at: Some(self.obtained_at),
            patience: Some(self.patience),
            window: self.window,
            jitter: self.jitter,
            ..Known::default()
        }
    }
}

fn beginning() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400)
}
