//! Readers that look without pause while versions are swapped.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use wicketgate::certificate::Certificate;
use wicketgate::store::Store;

use super::NAME;
use crate::bed::{Bed, is_thorough};

/// What a reader has seen.
#[derive(Debug, Default)]
struct Seen {
    reads: usize,
    missing: usize,
    /// Key and chain, opened one after the other, are of two versions.
    mixed_pairs: usize,
    /// Those of `combined.pem` are.
    mixed_combined: usize,
}

#[test]
fn a_reader_never_finds_a_file_missing_or_a_combined_one_mixed() {
    let bed = Bed::new();
    let store = Store::open(&bed.path("state")).unwrap();
    let both = [certificate(), certificate()];
    store.save(NAME, &both[0].clone().into()).unwrap();
    let swaps = if is_thorough() { 2000 } else { 200 };
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&over, &store.live_path(NAME), &both));
        for swap in 1..=swaps {
            store.save(NAME, &both[swap % 2].clone().into()).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    eprintln!("{swaps} swaps: {seen:?}");
    assert!(seen.reads > swaps / 4, "{seen:?}");
    assert_eq!((seen.missing, seen.mixed_combined), (0, 0), "{seen:?}");
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    Certificate::stored(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap()
}

fn read_until(over: &AtomicBool, live: &std::path::Path, both: &[Certificate; 2]) -> Seen {
    let mut seen = Seen::default();
    let combined = both.each_ref().map(|c| c.fullchain_pem() + c.key_pem());
    while !over.load(Ordering::Relaxed) {
        seen.reads += 1;
        let read = |file: &str| fs::read_to_string(live.join(file)).ok();
        let (key, chain, one) = (read("privkey.pem"), read("fullchain.pem"), read("combined.pem"));
        let (Some(key), Some(chain), Some(one)) = (key, chain, one) else {
            seen.missing += 1;
            continue;
        };
        let whose = |text: &str, of: &dyn Fn(&Certificate) -> String| both.iter().position(|c| of(c) == text);
        let key = whose(&key, &|c| c.key_pem().to_owned()).expect("the key of one of them, whole");
        let chain = whose(&chain, &Certificate::fullchain_pem).expect("the chain of one of them, whole");
        seen.mixed_pairs += usize::from(key != chain);
        seen.mixed_combined += usize::from(!combined.contains(&one));
    }
    seen
}
