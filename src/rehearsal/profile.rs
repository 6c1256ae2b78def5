//! The profiles that the embedded CA offers (draft-ietf-acme-profiles): the lifetimes that clients meet
//! in the field, and one that shows a renewal while a person watches.

use std::time::Duration;

/// One profile: its name, the leaf's lifetime, and a description for people.
pub(super) type Profile = (&'static str, Duration, &'static str);

const HOUR: u64 = 3600;

/// All profiles; the first is taken where an order names none.
pub(super) const PROFILES: &[Profile] = &[
    ("classic", Duration::from_secs(90 * 24 * HOUR), "90 days"),
    ("tlsserver", Duration::from_secs(45 * 24 * HOUR), "45 days"),
    ("shortlived", Duration::from_secs(160 * HOUR), "160 hours"),
    ("minutes", Duration::from_secs(180), "3 minutes, to watch a renewal"),
];

/// The profile of that name, or the default one.
pub(super) fn choose(name: Option<&str>) -> Option<&'static Profile> {
    match name {
        None => PROFILES.first(),
        Some(name) => PROFILES.iter().find(|profile| profile.0 == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_chosen_by_its_exact_name() {
        for (name, found) in [
            (None, Some("classic")),
            (Some("minutes"), Some("minutes")),
            (Some("Minutes"), None),
            (Some(""), None),
        ] {
            assert_eq!(choose(name).map(|profile| profile.0), found, "{name:?}");
        }
    }
}
