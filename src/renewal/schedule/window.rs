//! Renewal information (ARI, RFC 9773): the moment in the CA's window, and when it is asked (pure).

use std::time::{Duration, SystemTime};

use super::{later, span, unit};

/// At least twice a day.
const LONGEST_ASK: Duration = Duration::from_secs(12 * 3600);

/// The CA is not asked more often, whatever its Retry-After says (RFC 9773 section 4.3).
const SHORTEST_ASK: Duration = Duration::from_secs(60);

/// A certificate of minutes is asked about more often than that.
const SHORTEST_FRACTION: Duration = Duration::from_secs(30);

/// The CA's `suggestedWindow` for a certificate and the moment chosen in it, to be kept across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its start.
    pub start: SystemTime,
    /// Its end.
    pub end: SystemTime,
    /// When to renew; in the past: now.
    pub chosen: SystemTime,
}

/// The moment at the place `random` (0 to 1) of a window. `None` where the window ends before it starts
/// or as it starts: such an answer counts as none (RFC 9773 section 4.2).
pub fn choose(start: SystemTime, end: SystemTime, random: f64) -> Option<Window> {
    let length = end.duration_since(start).ok().filter(|length| !length.is_zero())?;
    let chosen = later(start, length.mul_f64(unit(random)).min(length));
    Some(Window { start, end, chosen })
}

/// The window of a new answer about the same certificate. One that has not changed keeps its moment; in
/// one that has changed the moment keeps its place, so that a CA whose window moves a little with every
/// answer does not have the dice thrown until they say "now", and one that moves or widens it to level its
/// load gets what it asks for: moments as evenly spread over the new window as over the old one.
/// `random` counts where there was no window before; [`jitter_of`](super::jitter_of) is a good one.
pub fn keep_or_choose(
    before: Option<&Window>,
    start: SystemTime,
    end: SystemTime,
    random: f64,
) -> Option<Window> {
    match before {
        Some(before) if (before.start, before.end) == (start, end) => {
            choose(start, end, 0.0).map(|_| Window { chosen: before.chosen.clamp(start, end), ..*before })
        }
        Some(before) => choose(start, end, before.place().unwrap_or(random)),
        None => choose(start, end, random),
    }
}

impl Window {
    /// Where its moment lies, from 0 to 1.
    fn place(&self) -> Option<f64> {
        let length = span(self.start, self.end);
        (!length.is_zero()).then(|| unit(span(self.start, self.chosen).div_duration_f64(length)))
    }
}

/// When the CA is asked again about a certificate of this lifetime.
///
/// After an answer (`failures` is 0) that is when its Retry-After says, or a little later; between a
/// minute and half a day, and never more than a tenth of the lifetime ahead. Failures in a row make it the
/// pauses of [`retry_after`](super::retry_after), within the same bounds. `random` (0 to 1) keeps installations apart.
pub fn ask_again(
    asked_at: SystemTime,
    retry_after: Option<SystemTime>,
    lifetime: Duration,
    failures: u32,
    random: f64,
) -> SystemTime {
    let longest = (lifetime / 10).clamp(SHORTEST_FRACTION, LONGEST_ASK);
    let random = unit(random);
    let asked_for = retry_after.map(|at| span(asked_at, at).max(SHORTEST_ASK.min(longest)));
    let pause = match (failures, asked_for) {
        (0, Some(pause)) if pause <= longest => pause.mul_f64(1.0 + random / 10.0).min(longest),
        (0, _) => longest.mul_f64(1.0 - random / 10.0),
        (failures, asked_for) => {
            let pause = super::retry_after(failures, random).max(asked_for.unwrap_or_default());
            pause.min(longest.mul_f64(1.0 - random / 10.0))
        }
    };
    later(asked_at, pause)
}

/// Whether the CA is to be asked at `now`, where [`ask_again`] said `next` (`None`: never asked). Not about
/// a certificate that has ended (RFC 9773 section 4.3). A `next` further ahead than it can be was written
/// by a clock that was wrong.
pub fn is_time_to_ask(next: Option<SystemTime>, not_after: SystemTime, now: SystemTime) -> bool {
    now < not_after && next.is_none_or(|next| next <= now || next > later(now, LONGEST_ASK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_moment_is_chosen_once_for_a_window() {
        let first = keep_or_choose(None, at(1000), at(2000), 0.25).unwrap();
        assert_eq!(first.chosen, at(1250));
        // The same window: the same moment, whatever the dice say.
        assert_eq!(keep_or_choose(Some(&first), at(1000), at(2000), 0.9), Some(first));
        // Another one: the same place.
        for (start, end, chosen) in [(1010, 2010, 1260), (1000, 5000, 2000), (0, 100, 25), (1200, 1300, 1225)]
        {
            assert_eq!(keep_or_choose(Some(&first), at(start), at(end), 0.9).unwrap().chosen, at(chosen));
        }
    }

    #[test]
    fn a_window_without_length_is_none() {
        assert_eq!(choose(at(10), at(10), 0.5), None);
        assert_eq!(choose(at(10), at(9), 0.5), None);
        let kept = choose(at(10), at(20), 0.5).unwrap();
        assert_eq!(keep_or_choose(Some(&kept), at(10), at(10), 0.5), None);
        // What was kept was edited: the moment lies in the window all the same.
        let edited = Window { chosen: at(99), ..kept };
        assert_eq!(keep_or_choose(Some(&edited), at(10), at(20), 0.5).unwrap().chosen, at(20));
        let edited = Window { start: at(20), end: at(20), chosen: at(20) };
        assert_eq!(keep_or_choose(Some(&edited), at(10), at(20), 0.5).unwrap().chosen, at(15));
    }

    #[test]
    fn when_the_ca_is_asked_again() {
        let (minute, hour, day) = (60, 3600, 86_400);
        for (retry_after, lifetime, failures, random, wanted) in [
            // Retry-After is honoured, with up to a tenth more.
            (Some(6 * hour), 90 * day, 0, 0.0, 6 * hour),
            (Some(6 * hour), 90 * day, 0, 1.0, 6 * hour + 36 * minute),
            (Some(12 * hour), 90 * day, 0, 1.0, 12 * hour),
            // Within bounds.
            (Some(0), 90 * day, 0, 0.0, minute),
            (Some(30 * day), 90 * day, 0, 0.0, 12 * hour),
            (Some(30 * day), 90 * day, 0, 1.0, 12 * hour - 72 * minute),
            (None, 90 * day, 0, 0.0, 12 * hour),
            // Short lifetimes.
            (Some(6 * hour), 10 * hour, 0, 0.0, hour),
            (None, 300, 0, 0.0, 30),
            (Some(0), 300, 0, 0.0, 30),
            (None, 0, 0, 0.0, 30),
            // Failures.
            (None, 90 * day, 1, 0.0, minute),
            (None, 90 * day, 2, 0.0, 10 * minute),
            (None, 90 * day, 3, 0.0, 100 * minute),
            (None, 90 * day, 4, 0.0, 12 * hour),
            (Some(2 * hour), 90 * day, 1, 0.0, 2 * hour),
            (None, 300, 3, 0.0, 30),
        ] {
            let now = at(1_000_000);
            let retry_at = retry_after.map(|seconds| now + Duration::from_secs(seconds));
            let next = ask_again(now, retry_at, Duration::from_secs(lifetime), failures, random);
            let pause = next.duration_since(now).unwrap().as_secs();
            assert_eq!(pause, wanted, "{retry_after:?} {lifetime} {failures} {random}");
        }
        // A Retry-After in the past.
        let next = ask_again(at(1_000_000), Some(at(1)), Duration::from_secs(90 * day), 0, 0.0);
        assert_eq!(next, at(1_000_060));
    }

    #[test]
    fn when_it_is_time_to_ask() {
        let day = 86_400;
        for (next, not_after, now, wanted) in [
            (None, 90 * day, day, true),
            (Some(day), 90 * day, day, true),
            (Some(day + 1), 90 * day, day, false),
            (Some(3650 * day), 90 * day, day, true),
            (None, 90 * day, 90 * day, false),
        ] {
            assert_eq!(is_time_to_ask(next.map(at), at(not_after), at(now)), wanted, "{next:?} {now}");
        }
    }

    proptest! {
        #[test]
        fn a_moment_lies_in_its_window(
            start in 0u64..5_000_000_000,
            length in 1u64..40_000_000,
            moved in 0u64..5_000_000_000,
            other in 1u64..40_000_000,
            random in 0.0f64..=1.0,
        ) {
            let window = choose(at(start), at(start + length), random).unwrap();
            prop_assert!(window.start <= window.chosen && window.chosen <= window.end);
            let next = keep_or_choose(Some(&window), at(moved), at(moved + other), 0.5).unwrap();
            prop_assert!(next.start <= next.chosen && next.chosen <= next.end);
            // There and back again, it has kept its place to the microsecond of the longer window.
            let back = keep_or_choose(Some(&next), at(start), at(start + length), 0.5).unwrap();
            let (a, b) = (back.chosen.max(window.chosen), back.chosen.min(window.chosen));
            let error = Duration::from_micros(1).mul_f64(1.0 + length as f64 / other as f64);
            prop_assert!(a.duration_since(b).unwrap() <= error);
        }

        #[test]
        fn the_ca_is_asked_at_least_twice_a_day_and_never_in_a_loop(
            retry_after in prop::option::of(0u64..100_000_000),
            lifetime in 300u64..34_387_200,
            failures in 0u32..,
            random in 0.0f64..=1.0,
        ) {
            let now = at(1_000_000);
            let lifetime = Duration::from_secs(lifetime);
            let next = ask_again(now, retry_after.map(at), lifetime, failures, random);
            let pause = next.duration_since(now).unwrap();
            prop_assert!(pause >= Duration::from_secs(27), "{pause:?}");
            prop_assert!(pause <= LONGEST_ASK && pause <= lifetime / 10, "{pause:?}");
        }
    }
}
