//! Renewal information, replacements, revocation, external accounts and key rollover, with an independent
//! client.

use std::time::SystemTime;

use instant_acme::{CertificateIdentifier, ExternalAccountKey, RevocationReason, RevocationRequest};
use wicketgate::clock;
use wicketgate::rehearsal::{ExternalAccount, RateLimit, RateLimits, RenewalFaults, RetryAfter, WindowFault};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn leaf(chain: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()
}

fn name(leaf: &CertificateDer<'_>) -> CertificateIdentifier<'static> {
    CertificateIdentifier::try_from(leaf).unwrap().into_owned()
}

/// How far from now a window's ends are, in seconds.
async fn window(bench: &Bench, leaf: &CertificateDer<'_>) -> (i64, i64) {
    let (information, _) = bench.account.renewal_info(&name(leaf)).await.unwrap();
    let now = clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let window = information.suggested_window;
    (window.start.unix_timestamp() - now, window.end.unix_timestamp() - now)
}

async fn replace(bench: &Bench, names: &[&str], leaf: &CertificateDer<'_>) -> Result<Order, Error> {
    let identifiers = identifiers(names);
    bench.account.new_order(&NewOrder::new(&identifiers).replaces(name(leaf))).await
}

#[tokio::test]
async fn a_certificate_is_renewed_by_its_information() {
    let bench = Bench::new().await;
    let first = leaf(&bench.obtain(&["a.example"], Some("classic")).await);
    let (information, again) = bench.account.renewal_info(&name(&first)).await.unwrap();
    assert_eq!((information.explanation_url, again <= Duration::from_secs(6 * 3600)), (None, true));
    let (start, end) = window(&bench, &first).await;
    let day = DAY.as_secs().cast_signed();
    assert!(58 * day < start && start < 60 * day && 60 * day < end && end < 62 * day, "{start} {end}");

    let mut order = replace(&bench, &["a.example", "b.example"], &first).await.unwrap();
    bench.answer(&mut order).await.unwrap();
    assert_eq!(order.poll_ready(&quickly()).await.unwrap(), OrderStatus::Ready);
    assert_eq!(order.state().replaces, Some(name(&first)));
    let key = KeyPair::generate().unwrap();
    order.finalize_csr(&csr(&["a.example", "b.example"], &key)).await.unwrap();
    let second = leaf(&order.poll_certificate(&quickly()).await.unwrap());
    let Err(error) = replace(&bench, &["a.example"], &first).await else { panic!("it was replaced twice") };
    let problem = api_problem(error);
    assert_eq!((kind(&problem), problem.status), ("alreadyReplaced", Some(409)));
    assert!(replace(&bench, &["b.example"], &second).await.is_ok());
    let seen = bench.ca.seen();
    assert_eq!((seen.orders, seen.orders_with_replaces, seen.certificates), (3, 2, 2));
    assert_eq!(seen.renewal_info_asks, 2);
}

#[tokio::test]
async fn a_window_moves_and_an_answer_fails_as_it_is_told() {
    let bench = Bench::new().await;
    let issued = leaf(&bench.obtain(&["a.example"], None).await);
    let set = |renewal: RenewalFaults| bench.ca.set_faults(Faults { renewal, ..Faults::default() });
    let none = RenewalFaults::default;
    set(RenewalFaults { window: WindowFault::Past, ..none() });
    assert!(window(&bench, &issued).await.1 < 0);
    set(RenewalFaults { window: WindowFault::Later(DAY * 3650), ..none() });
    assert!(window(&bench, &issued).await.0 > (DAY * 3650).as_secs().cast_signed());
    let date = RetryAfter::Date(Duration::from_secs(3600));
    set(RenewalFaults { retry_after: Some(date), window: WindowFault::Now, ..none() });
    let (_, again) = bench.account.renewal_info(&name(&issued)).await.unwrap();
    assert!((3000..=3600).contains(&again.as_secs()), "{again:?}");
    set(RenewalFaults { retry_after: Some(RetryAfter::Missing), ..none() });
    assert!(bench.account.renewal_info(&name(&issued)).await.is_err());
    for answer in [
        AnswerFault::BrokenJson,
        AnswerFault::Garbage,
        AnswerFault::Status(404, RetryAfter::Missing),
        AnswerFault::Status(500, RetryAfter::Missing),
    ] {
        set(RenewalFaults { answer, ..none() });
        assert!(bench.account.renewal_info(&name(&issued)).await.is_err(), "{answer:?}");
        assert!(account(&bench.ca).await.is_ok(), "{answer:?}");
    }
    set(RenewalFaults { answer: AnswerFault::Hang, ..none() });
    let (id, patience) = (name(&issued), Duration::from_millis(100));
    assert!(tokio::time::timeout(patience, bench.account.renewal_info(&id)).await.is_err());
    assert_eq!(bench.ca.seen().renewal_info_asks, 9);

    set(RenewalFaults { not_offered: true, ..none() });
    let client = account(&bench.ca).await.unwrap();
    assert!(matches!(client.renewal_info(&id).await, Err(Error::Unsupported(_))));
}

#[tokio::test]
async fn a_revoked_certificate_calls_for_another_at_once() {
    let bench = Bench::new().await;
    let issued = leaf(&bench.obtain(&["a.example"], None).await);
    let request = RevocationRequest { certificate: &issued, reason: Some(RevocationReason::Superseded) };
    let stranger = account(&bench.ca).await.unwrap();
    assert_eq!(kind(&api_problem(stranger.revoke(&request).await.unwrap_err())), "unauthorized");
    bench.account.revoke(&request).await.unwrap();
    let again = api_problem(bench.account.revoke(&request).await.unwrap_err());
    assert_eq!(kind(&again), "alreadyRevoked");
    assert!(window(&bench, &issued).await.1 < 0);
    assert_eq!(bench.ca.seen().revocations, 1);
}

#[tokio::test]
async fn an_account_is_bound_and_changes_its_key() {
    let key = [7; 32];
    let answers = Answers::default();
    let mut settings = Settings::new(answers.serve().await, vec!["a.example".parse().unwrap()]);
    settings.external_accounts = vec![ExternalAccount::new("kid-1", key)];
    let ca = EmbeddedCa::start(settings).await.unwrap();
    let new = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let make = async |key: Option<ExternalAccountKey>| {
        let builder = Account::builder_with_http(Box::new(Transport::new(&ca)));
        builder.create(&new, ca.directory_url(), key.as_ref()).await.map(|(account, _)| account)
    };
    let refused = |made: Result<Account, Error>| match made {
        Ok(_) => panic!("an account was made"),
        Err(error) => kind(&api_problem(error)).to_owned(),
    };
    let named = |kid: &str, key: &[u8]| Some(ExternalAccountKey::new(kid.to_owned(), key));
    assert_eq!(refused(make(None).await), "externalAccountRequired");
    assert_eq!(refused(make(named("kid-1", &[8; 32])).await), "unauthorized");
    assert_eq!(refused(make(named("kid-2", &key)).await), "unauthorized");
    let mut account = make(named("kid-1", &key)).await.unwrap();
    assert_eq!(refused(make(named("kid-1", &key)).await), "unauthorized");

    let _ = account.update_key().await.unwrap();
    let mut bench = Bench { ca, answers, account };
    bench.obtain(&["a.example"], None).await;
    assert_eq!(bench.ca.seen().accounts, 1);
    bench.account.update_contacts(&["mailto:ops@example.net"]).await.unwrap();
    let identifiers = identifiers(&["a.example"]);
    let id = bench.account.id().to_owned();
    let credentials = bench.account.update_key().await.unwrap();
    bench.account.deactivate().await.unwrap();
    let builder = Account::builder_with_http(Box::new(Transport::new(&bench.ca)));
    let late = builder.from_credentials(credentials).await.unwrap();
    assert_eq!(late.id(), id);
    let Err(error) = late.new_order(&NewOrder::new(&identifiers)).await else { panic!("an order was made") };
    assert_eq!(kind(&api_problem(error)), "unauthorized");
}

#[tokio::test]
async fn limits_are_kept_and_renewals_by_information_are_exempt() {
    let bench = Bench::new().await;
    let once = RateLimit { burst: 1, refill: DAY };
    let limits = RateLimits { exact_set: once, new_orders: once, ..RateLimits::LETS_ENCRYPT };
    bench.ca.set_faults(Faults { limits: Some(limits), ..Faults::default() });
    let mut issued = leaf(&bench.obtain(&["a.example"], None).await);
    let Err(error) = bench.order(&["a.example"], None).await else { panic!("the limit was not kept") };
    assert_eq!(kind(&api_problem(error)), "rateLimited");
    for _ in 0..3 {
        let mut order = replace(&bench, &["a.example"], &issued).await.unwrap();
        bench.answer(&mut order).await.unwrap();
        assert_eq!(order.poll_ready(&quickly()).await.unwrap(), OrderStatus::Ready);
        order.finalize_csr(&csr(&["a.example"], &KeyPair::generate().unwrap())).await.unwrap();
        issued = leaf(&order.poll_certificate(&quickly()).await.unwrap());
    }
    let seen = bench.ca.seen();
    assert_eq!((seen.certificates, seen.limits_met), (4, 1));
}

#[tokio::test]
async fn leaves_last_and_begin_as_they_were_told() {
    crate::bed::needs!("openssl");
    let hour = Duration::from_secs(3600);
    let bench = Bench::with(|settings| {
        settings.root_lifetime = 400 * DAY;
        settings.leaf_lifetime = Some(398 * DAY);
        settings.backdate = hour;
    })
    .await;
    for lifetime in [398 * DAY, 2 * hour] {
        bench.ca.set_leaf_lifetime(Some(lifetime)).unwrap();
        let chain = bench.obtain(&["a.example"], None).await;
        let der = leaf(&chain);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let validity = certificate.validity();
        let whole = validity.not_after.timestamp() - validity.not_before.timestamp() + 1;
        assert_eq!(whole, lifetime.as_secs().cast_signed());
        let now = clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
        assert!(validity.not_before.timestamp() <= now - 3600);
        let (verifies, words) = openssl_verify(bench.ca.root_pem(), &chain, &[]);
        assert!(verifies, "{words}");
    }
}

#[tokio::test]
async fn two_of_them_know_nothing_of_each_other() {
    let (staging, production) = (Bench::new().await, Bench::new().await);
    let issued = leaf(&staging.obtain(&["a.example"], None).await);
    production.obtain(&["a.example"], None).await;
    assert!(production.account.renewal_info(&name(&issued)).await.is_err());
    let request = RevocationRequest { certificate: &issued, reason: None };
    assert!(production.account.revoke(&request).await.is_err());
    staging.ca.set_faults(Faults { order_error: Some(ProblemType::Caa), ..Faults::default() });
    production.obtain(&["b.example"], None).await;
    let counts = [&staging, &production].map(|bench| bench.ca.seen().certificates);
    assert_eq!(counts, [1, 2]);
}
