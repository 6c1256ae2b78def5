//! The gate's decisions, without a socket, and the schedule's, without a CA.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fleet::{Fleet, Start};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use wicketgate::challenge::{ChallengeTable, Pending, Purpose};
use wicketgate::config::{Redirect, RedirectHosts};
use wicketgate::gate::Policy;
use wicketgate::gate::reply::{Request, reply};
use wicketgate::hostname::Identifier;

#[path = "../tests/it/schedule/fleet.rs"]
mod fleet;

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";

fn gate(c: &mut Criterion) {
    let hosts: BTreeSet<Identifier> = (0..100).map(|i| format!("h{i}.bench.test").parse().unwrap()).collect();
    let table = ChallengeTable::new();
    let _pending = table.put(
        TOKEN.parse().unwrap(),
        Pending {
            key_authorization: Bytes::from_static(b"token.thumbprint"),
            hosts: Arc::new(hosts.clone()),
            purpose: Purpose::Order,
        },
    );
    let policy = Policy {
        redirect: Redirect {
            status: StatusCode::PERMANENT_REDIRECT,
            port: 443,
            hosts: RedirectHosts::Configured(hosts.clone()),
        },
        match_host: true,
        trusted_proxies: Vec::new(),
    };
    let mut group = c.benchmark_group("gate");
    for (name, host, target) in [
        ("redirect", "h42.bench.test", "/a/b?c=d".to_owned()),
        ("redirect, host in capitals", "H42.Bench.Test:80", "/a/b?c=d".to_owned()),
        ("challenge", "h42.bench.test", format!("/.well-known/acme-challenge/{TOKEN}")),
        ("unknown challenge", "h42.bench.test", "/.well-known/acme-challenge/other".to_owned()),
        ("foreign host", "elsewhere.test", "/".to_owned()),
    ] {
        let target: Uri = target.parse().unwrap();
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
        let request =
            Request { method: &Method::GET, version: Version::HTTP_11, target: &target, headers: &headers };
        group.bench_function(name, |b| {
            let mut fields = HeaderMap::with_capacity(4);
            b.iter(|| {
                fields.clear();
                reply(black_box(&request), &table, &policy, &hosts).render(&mut fields)
            });
        });
    }
    group.finish();
}

/// The CPU time of a year of 100,000 certificates: some 2.4 million decisions, and as many moves in the
/// heap of their next moments.
fn schedule(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedule");
    group.sample_size(10);
    for (name, start, ari) in [
        ("a year of 100,000", Start::Evenly, false),
        ("a year of 100,000 with ARI", Start::Evenly, true),
        ("a year of 100,000 from one hour", Start::SameHour, false),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || Fleet::new(100_000, start, ari),
                |fleet| black_box(fleet.year().decisions),
                BatchSize::PerIteration,
            );
        });
    }
    eprintln!("{} bytes a certificate", Fleet::BYTES_PER_CERTIFICATE);
    group.finish();
}

criterion_group!(benches, gate, schedule);
criterion_main!(benches);
