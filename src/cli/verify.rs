//! `verify`: what is shown where certificates were deployed to, or anywhere else.

mod report;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;

use super::{Arguments, FAILED, Failure, USAGE, config_environment, log, output, runtime};
use crate::clock;
use crate::config::{CertificateRequest, Config, Endpoint, Issuer, Notify};
use crate::deploy::verify::{Expected, Leaf, Roots, Turns, endpoint_of, inspect_all};
use crate::hostname::{Hostname, Identifier};
use crate::store::{Store, StoreError, kept_chains};
use report::{Measure, Report, Row, Stored, Telling, judge};

/// For one name at one endpoint.
const WITHIN: Duration = Duration::from_secs(20);
/// What `service` says of this program's own front.
const FRONT: &str = "front";

#[derive(Args, Debug)]
pub(super) struct VerifyArguments {
    /// Certificates by name, or hostnames of theirs; every certificate if none is given
    names: Vec<String>,
    /// Look there in place of where certificates are deployed to: HOST:PORT, with `smtp://` or `imap://` before
    /// it for STARTTLS (implied by the ports 25, 587 and 143), `tls://` for TLS from the first byte (implied by
    /// all others), `proxy+tls://` where a PROXY header is expected.
    /// `--hostname` tells the name to ask for then, else it is the endpoint's own, else those of the
    /// configuration, which need not be there; `--roots` are trusted besides all others
    #[arg(long, value_name = "ENDPOINT")]
    at: Vec<Endpoint>,
    /// Print JSON: an object with `ok`, `warnings` and `endpoints`, one for each endpoint and name; the README
    /// has their fields
    #[arg(long)]
    json: bool,
}

/// One endpoint, and what is asked for there.
struct Target {
    endpoint: Endpoint,
    identifiers: Vec<Identifier>,
    expected: Vec<Expected>,
    measure: Measure,
}

pub(super) fn run(arguments: &Arguments, verify: &VerifyArguments) -> Result<u8, Failure> {
    let asked = asked(arguments, verify)?;
    let mut warnings = Vec::new();
    let config = load(arguments, verify, &mut warnings)?;
    log::start(arguments, "warn")?;
    let roots = roots(config.as_ref(), arguments.flags.roots.as_deref(), &mut warnings)?;
    let targets = targets(config.as_ref(), verify, &asked, &mut warnings)?;
    if targets.is_empty() {
        for warning in &warnings {
            output::complain(&format!("warning: {warning}"));
        }
        let message = "there is nothing to look at: no certificate is deployed to a server with `verify`, and there is no front; name a place, as in `wicketgate verify --at www.example.net:443`";
        return Err(Failure::new(FAILED, message));
    }
    let runtime = runtime()?;
    let mut telling = Telling::new(output::is_watched());
    if !verify.json {
        output::say(&telling.warnings(&warnings));
    }
    let rows = runtime.block_on(look(targets, roots, |rows| {
        if !verify.json {
            output::say(&telling.rows(rows));
        }
    }));
    // A name that is still being looked up is nobody's concern any more.
    runtime.shutdown_background();
    let report = Report::new(warnings, rows);
    if verify.json {
        output::json(&report);
    } else if config.as_ref().is_some_and(|config| !config.gate.openings.is_empty()) {
        output::line(
            "all of it was looked at from this machine: what a packet filter does to others ([[gate.opening]]) is not seen here; `rehearse --staging` has a CA come from outside",
        );
    }
    Ok(if report.ok { 0 } else { FAILED })
}

/// Looks at everything, some of it at once; what was seen, in the order of the targets. It is told in that order,
/// as soon as all before it is.
async fn look(targets: Vec<Target>, roots: Roots, mut tell: impl FnMut(&[Row])) -> Vec<Row> {
    let turns = Turns::default();
    let mut looks = JoinSet::new();
    for (place, target) in targets.into_iter().enumerate() {
        let (turns, roots) = (turns.clone(), roots.clone());
        looks.spawn(async move {
            let Target { endpoint, identifiers, expected, measure } = target;
            let seen = inspect_all(&endpoint, &identifiers, &expected, &roots, WITHIN, &turns).await;
            let now = clock::now();
            (place, seen.iter().map(|inspection| judge(inspection, &measure, now)).collect::<Vec<_>>())
        });
    }
    let (mut told, mut waiting, mut all) = (0, BTreeMap::new(), Vec::new());
    while let Some(joined) = looks.join_next().await {
        // It was never cancelled, so it has panicked, and so does this.
        let (place, rows) = joined.unwrap_or_else(|e| resume_unwind(e.into_panic()));
        waiting.insert(place, rows);
        while let Some(rows) = waiting.remove(&told) {
            tell(&rows);
            all.extend(rows);
            told += 1;
        }
    }
    all
}

/// A name or an address, `localhost` and its like included.
fn identifier(text: &str) -> Result<Identifier, String> {
    match text.parse() {
        Ok(ip) => Ok(Identifier::Ip(ip)),
        Err(_) => Hostname::parse_any(text).map(Identifier::Dns).map_err(|e| e.to_string()),
    }
}

/// With `--at`, what `--hostname` wants to be asked for.
fn asked(arguments: &Arguments, verify: &VerifyArguments) -> Result<Vec<Identifier>, Failure> {
    if verify.at.is_empty() {
        return Ok(Vec::new());
    }
    let names = arguments.flags.hostname.iter().map(|name| identifier(name));
    names.collect::<Result<_, _>>().map_err(|e| Failure::new(USAGE, e))
}

/// The configuration; with `--at` there need not be one, and the usual one may be others' alone.
fn load(
    arguments: &Arguments,
    verify: &VerifyArguments,
    warnings: &mut Vec<String>,
) -> Result<Option<Config>, Failure> {
    let file = Config::file(arguments.config.clone());
    if file.is_none() && !verify.at.is_empty() {
        return Ok(None);
    }
    if let Some(usual) = file.as_ref().filter(|_| arguments.config.is_none())
        && !verify.at.is_empty()
        && verify.names.is_empty()
        && File::open(usual).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    {
        warnings.push(format!(
            "this user may not read {}, so that what is shown is judged by itself: run as a user who may, it would be compared with what is stored",
            usual.display()
        ));
        return Ok(None);
    }
    let mut flags = arguments.flags.clone();
    flags.roots = None;
    if !verify.at.is_empty() {
        flags.hostname.clear();
    }
    let config = Config::load(file.as_deref(), config_environment(), &flags)?;
    for warning in &config.warnings {
        output::complain(&format!("warning: {warning}"));
    }
    Ok(Some(config))
}

fn roots(config: Option<&Config>, given: Option<&str>, warnings: &mut Vec<String>) -> Result<Roots, Failure> {
    let mut roots = Roots::public();
    if let Some(path) = given {
        roots.add_file(Path::new(path)).map_err(|e| Failure::new(FAILED, e))?;
    }
    let Some(config) = config else { return Ok(roots) };
    if let Some(path) = &config.acme.roots
        && let Err(e) = roots.add_file(path)
    {
        warnings.push(e.to_string());
    }
    if config.acme.issuers().any(|issuer| *issuer == Issuer::Embedded)
        && let Ok(Some(pem)) =
            Store::open_existing(&config.state_dir).and_then(|store| store.embedded_roots())
    {
        roots.add_pem(&pem);
    }
    Ok(roots)
}

/// What is to be looked at.
fn targets(
    config: Option<&Config>,
    verify: &VerifyArguments,
    asked: &[Identifier],
    warnings: &mut Vec<String>,
) -> Result<Vec<Target>, Failure> {
    let chosen = match config {
        Some(config) => chosen(config, &verify.names)?,
        None if verify.names.is_empty() => Vec::new(),
        None => {
            let message = "without a configuration no certificate is known by name: use `--hostname` for what to ask for";
            return Err(Failure::new(FAILED, message));
        }
    };
    let places: Vec<_> =
        verify.at.iter().map(|endpoint| (endpoint, alone(endpoint, verify, asked))).collect();
    let mut targets = Vec::new();
    for (endpoint, own) in &places {
        let own = own
            .clone()
            .or_else(|| chosen.is_empty().then(|| identifier(&endpoint.host).into_iter().collect()));
        let expiring_below =
            config.map_or_else(|| Notify::default().expiring_below, |c| c.notify.expiring_below);
        let Some(identifiers) = own else { continue };
        let stored = config.map(|config| stored_for(config, &identifiers, warnings)).unwrap_or_default();
        targets.push(Target {
            endpoint: (*endpoint).clone(),
            identifiers,
            expected: Vec::new(),
            measure: Measure { expiring_below, stored, ..Measure::default() },
        });
    }
    if !places.is_empty() && places.iter().all(|(_, own)| own.is_some()) {
        return Ok(targets);
    }
    for (config, request, identifiers) in chosen {
        let (expected, stored) = kept(config, request, warnings);
        let looked_at: Vec<_> = if verify.at.is_empty() {
            let deployed = deployed(config, request, warnings);
            deployed.into_iter().map(|(service, endpoint)| (Some(service), endpoint)).collect()
        } else {
            let common = places.iter().filter(|(_, own)| own.is_none());
            common.map(|(endpoint, _)| (None, (*endpoint).clone())).collect()
        };
        let identifiers = if asked.is_empty() { identifiers } else { asked.to_vec() };
        let stored: Vec<_> =
            stored.into_iter().map(|one| Stored { identifiers: identifiers.clone(), ..one }).collect();
        targets.extend(looked_at.into_iter().map(|(service, endpoint)| Target {
            endpoint,
            identifiers: identifiers.clone(),
            expected: expected.clone(),
            measure: Measure {
                certificate: Some(request.name.clone()),
                service,
                is_private: is_private(config),
                expiring_below: config.notify.expiring_below,
                stored: stored.clone(),
            },
        }));
    }
    Ok(targets)
}

/// What is stored of each certificate of the configuration that has one of the names.
fn stored_for(config: &Config, identifiers: &[Identifier], warnings: &mut Vec<String>) -> Vec<Stored> {
    let has_one = |c: &&CertificateRequest| c.identifiers.iter().any(|own| identifiers.contains(own));
    let requests = config.certificates.iter().filter(has_one);
    requests.filter_map(|request| kept(config, request, warnings).1).collect()
}

/// What to ask an endpoint of `--at` for, if that does not depend on a configured certificate.
fn alone(endpoint: &Endpoint, verify: &VerifyArguments, asked: &[Identifier]) -> Option<Vec<Identifier>> {
    if !verify.names.is_empty() {
        return None;
    }
    if !asked.is_empty() {
        return Some(asked.to_vec());
    }
    match identifier(&endpoint.host) {
        Ok(name @ Identifier::Dns(_)) => Some(vec![name]),
        _ => None,
    }
}

type Chosen<'a> = (&'a Config, &'a CertificateRequest, Vec<Identifier>);

/// Certificates by their names, or by one of theirs; all where none is given.
fn chosen<'a>(config: &'a Config, names: &[String]) -> Result<Vec<Chosen<'a>>, Failure> {
    if names.is_empty() {
        return Ok(config.certificates.iter().map(|c| (config, c, c.identifiers.clone())).collect());
    }
    let mut chosen: Vec<Chosen<'a>> = Vec::new();
    for name in names {
        let wanted = identifier(name).ok();
        let found = config.certificates.iter().find(|c| c.name == *name).map(|c| (c, c.identifiers.clone()));
        let found = found.or_else(|| {
            let wanted = wanted?;
            let certificate = config.certificates.iter().find(|c| c.identifiers.contains(&wanted))?;
            Some((certificate, vec![wanted]))
        });
        let Some((certificate, identifiers)) = found else {
            let known: Vec<_> = config.certificates.iter().map(|c| c.name.as_str()).collect();
            let message = format!(
                "`{name}` is neither a certificate of the configuration (it names {}) nor a name of one; what others show is looked at with `--at`",
                known.join(", ")
            );
            return Err(Failure::new(FAILED, message));
        };
        match chosen.iter_mut().find(|(_, c, _)| c.name == certificate.name) {
            Some((_, _, already)) => {
                let new: Vec<_> = identifiers.into_iter().filter(|id| !already.contains(id)).collect();
                already.extend(new);
            }
            None => chosen.push((config, certificate, identifiers)),
        }
    }
    Ok(chosen)
}

/// Where a certificate is deployed to, and by which name.
fn deployed(
    config: &Config,
    request: &CertificateRequest,
    warnings: &mut Vec<String>,
) -> Vec<(String, Endpoint)> {
    let mut places = Vec::new();
    for service in &request.deploy {
        let Some(target) = config.deploy.get(service) else { continue };
        if target.verify.is_empty() {
            warnings.push(format!(
                "{}: {service} is not looked at, since [deploy.{service}] has no `verify`",
                request.name
            ));
        }
        places.extend(target.verify.iter().map(|endpoint| (service.clone(), endpoint.clone())));
    }
    for listen in config.front.iter().flat_map(|front| &front.listen) {
        places.push((FRONT.to_owned(), endpoint_of(*listen)));
    }
    places
}

/// The live version, and all that are kept; what hinders is told, and what is shown is judged without it.
fn kept(
    config: &Config,
    request: &CertificateRequest,
    warnings: &mut Vec<String>,
) -> (Vec<Expected>, Option<Stored>) {
    let name = &request.name;
    let mut warn = |text: String| {
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    };
    let kept = match kept_chains(&config.state_dir, name) {
        Ok(Some(kept)) => kept,
        Ok(None) => {
            warn(format!("{name}: no certificate is stored yet; what is shown is judged by itself"));
            return (Vec::new(), None);
        }
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            warn(format!(
                "this user may not read what is stored in {}, so that what is shown is judged by itself: as the service's user, or one of its group where that may read certificates, it would be compared",
                config.state_dir.display()
            ));
            return (Vec::new(), None);
        }
        Err(e) => {
            warn(format!(
                "{name}: what is stored cannot be compared with what is shown, which is judged by itself: {e}"
            ));
            return (Vec::new(), None);
        }
    };
    let (mut expected, mut versions) = (Vec::new(), Vec::new());
    for (version, chains) in kept.versions {
        versions.push((version, chains.iter().filter_map(|chain| Leaf::read(chain.first()?).ok()).collect()));
        for chain in chains.into_iter().filter(|_| version == kept.live) {
            match Expected::new(chain) {
                Ok(one) => expected.push(one),
                Err(why) => warn(format!("{name}: the stored certificate cannot be read: {why}")),
            }
        }
    }
    let stored = Stored {
        certificate: name.clone(),
        identifiers: request.identifiers.clone(),
        live: kept.live,
        versions,
        is_deployed: !request.deploy.is_empty(),
    };
    (expected, Some(stored))
}

/// One of the issuers is not a public CA, or its roots were given.
fn is_private(config: &Config) -> bool {
    let is_public =
        |issuer: &Issuer| matches!(issuer, Issuer::LetsEncrypt | Issuer::ZeroSsl | Issuer::Google);
    config.acme.roots.is_some() || !config.acme.issuers().all(is_public)
}
