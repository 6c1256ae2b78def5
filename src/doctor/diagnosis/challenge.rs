//! Port 80: who has it, what becomes of the CA's requests there, and what would be lost if the gate took it.
//! Pure.

use super::super::finding::{Cause, Finding, Severity};
use super::super::ours::Gateway;
use super::super::picture::{CHALLENGE, Deed, Fate, Picture, Server, Site};
use super::names;
use super::{Evidence, Port80};

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = vec![port_80(evidence)];
    for picture in evidence.pictures {
        let is_elsewhere = |site: &&Site| {
            let listen = site.port_80();
            // The gate has port 80 of another address, and the CA comes there.
            evidence.ours.wants_port_80() && listen.is_some_and(|l| !evidence.ours.collides(l.address))
        };
        let sites: Vec<_> =
            picture.sites.iter().filter(|site| site.port_80().is_some() && !is_elsewhere(site)).collect();
        let Some(listen) = sites.first().and_then(|site| site.port_80()) else { continue };
        if evidence.ours.wants_port_80() {
            findings.push(contended(evidence, picture, listen.place.to_string()));
        }
        // Where another program has the port, nobody is asked here.
        if evidence.port_80.program().is_some() && !holds(evidence, picture.server) {
            continue;
        }
        let is_to_leave = evidence.ours.wants_port_80() && !holds(evidence, picture.server);
        for site in sites.into_iter().filter(|site| names::concerns_us(evidence, site)) {
            let mut met = met(evidence, picture, site);
            // That it has no answer of its own is no news where it is to give up the port.
            met.retain(|finding| !is_to_leave || finding.cause != Cause::ChallengeAnswered);
            findings.extend(met);
        }
    }
    if evidence.ours.wants_port_80() {
        findings.extend(http_only(evidence));
    }
    findings
}

/// Whether a server is known to have port 80.
fn holds(evidence: &Evidence<'_>, server: Server) -> bool {
    evidence.port_80.program().and_then(Server::of_program) == Some(server)
}

fn port_80(evidence: &Evidence<'_>) -> Finding {
    match evidence.port_80 {
        Port80::Free => Finding::new(Cause::Port80Free, Severity::Fine, "nobody holds port 80").means(
            if evidence.ours.wants_port_80() { "the gate can take it" } else { "no challenge comes in now" },
        ),
        Port80::Held { program, pid } => {
            let finding = Finding::new(
                Cause::Port80Held,
                Severity::Fine,
                format!("{program} holds port 80 (pid {pid})"),
            );
            match Server::of_program(program) {
                _ if program == "wicketgate" => finding.means("challenges come to the gate"),
                Some(Server::Hitch) => Finding { severity: Severity::Problem, ..finding }
                    .means("hitch speaks TLS alone, and a CA comes with plain http")
                    .remedy("take `:80` out of its frontends"),
                Some(server) if has_site_on_80(evidence, server) => {
                    finding.means(format!("challenges come to {}, which has to pass them on", server.name()))
                }
                _ if program == "caddy" => Finding { severity: Severity::Warning, ..finding }
                    .means("challenges come to Caddy, whose configuration is not read here")
                    .remedy(format!(
                        "in each http site of its Caddyfile write the three lines `handle {CHALLENGE}* {{`, `reverse_proxy {}` and `}}`, as in deploy/caddy/Caddyfile, or give port 80 to the gate{}",
                        evidence.gateway.address,
                        listen_there(evidence.gateway)
                    )),
                _ => {
                    let gateway = evidence.gateway;
                    Finding { severity: Severity::Warning, ..finding }
                        .means("challenges come to that program, and which site of it is on port 80 was not found here")
                        .remedy(format!(
                            "have it pass {CHALLENGE} on to {} with the Host header unchanged, or give port 80 to the gate{}",
                            gateway.address,
                            listen_there(gateway)
                        ))
                }
            }
        }
        Port80::HeldUnseen => Finding::new(
            Cause::Port80Unknown,
            Severity::Warning,
            "a program holds port 80, and this user may not see which",
        )
        .means("the servers were looked at as if any of them held it")
        .remedy("run `wicketgate doctor` as root"),
        Port80::NotLooked => Finding::new(
            Cause::Port80Unknown,
            Severity::Fine,
            "who holds port 80 was not looked at, for the files are another installation's",
        )
        .means("the servers were looked at as if each held it"),
    }
}

fn has_site_on_80(evidence: &Evidence<'_>, server: Server) -> bool {
    evidence.sites().any(|(picture, site)| picture.server == server && site.port_80().is_some())
}

/// What wicketgate has to be told where the gate is to move.
fn listen_there(gateway: &Gateway) -> String {
    if !gateway.is_to_come {
        return String::new();
    }
    format!(
        ", and set `gate.listen = [\"{}\"]` and `gate.trusted-proxies = [\"127.0.0.1\"]` in wicketgate's configuration",
        gateway.address
    )
}

/// A server has a site on port 80, and the gate is to listen there.
fn contended(evidence: &Evidence<'_>, picture: &Picture, place: String) -> Finding {
    let name = picture.server.name();
    let is_known = !evidence.ours.is_unknown();
    let gateway = evidence.gateway;
    let means = match evidence.port_80.program() {
        Some("wicketgate") => format!("wicketgate has it, so {name} fails at its next start"),
        Some(program) if Server::of_program(program) == Some(picture.server) => {
            format!("{name} has it, so the gate cannot listen there")
        }
        _ => "whichever starts second fails".to_owned(),
    };
    let wanted = if is_known { "the gate is configured for it too" } else { "so would the gate by default" };
    let remedy = if picture.server == Server::Hitch {
        "take `:80` out of its frontends: it speaks TLS alone".to_owned()
    } else {
        format!(
            "either take port 80 out of {name}, or leave it there: put the rule below into its files{}",
            listen_there(gateway)
        )
    };
    Finding {
        server: Some(picture.server),
        place: Some(place),
        ..Finding::new(
            Cause::Port80Contended,
            if is_known { Severity::Problem } else { Severity::Warning },
            format!("{name} listens on port 80, and {wanted}"),
        )
    }
    .means(means)
    .remedy(remedy)
}

/// What becomes of a challenge at a site.
fn met(evidence: &Evidence<'_>, picture: &Picture, site: &Site) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_to_gate = |fate: &Fate| match &fate.deed {
        Deed::Passed { host, port, .. } => evidence.ours.is_gate(host, *port),
        _ => false,
    };
    let reaches = site.challenge.iter().any(|fate| fate.certain && is_to_gate(fate));
    // Where our gate is not known, a path of its own for challenges is believed to lead to it.
    let is_own_path = !evidence.ours.is_unknown() || site.challenge != site.page;
    for fate in &site.challenge {
        let finding = match &fate.deed {
            Deed::Passed { faithful, .. } if is_to_gate(fate) && is_own_path => {
                if *faithful {
                    passed(fate)
                } else {
                    altered(fate)
                }
            }
            Deed::Passed { host, port, .. } if !reaches || fate.certain => misdirected(fate, host, *port),
            Deed::Passed { .. } => continue,
            Deed::Redirected => redirected(fate),
            Deed::Denied => denied(fate),
            Deed::Filtered => filtered(fate),
            Deed::Answered => answered(fate),
        };
        findings.push(settled(finding, evidence, picture, site, fate));
    }
    findings
}

fn settled(
    finding: Finding,
    evidence: &Evidence<'_>,
    picture: &Picture,
    site: &Site,
    fate: &Fate,
) -> Finding {
    let gateway = evidence.gateway;
    let mut finding = finding.at(picture.server, &fate.place);
    if let Some(name) = names::exact(site).map(|(name, _)| name).next() {
        finding.seen.push_str(&format!(" (of {name})"));
    } else if site.place != fate.place {
        finding.seen.push_str(&format!(" (of the site at {})", site.place));
    }
    if !fate.certain && finding.severity == Severity::Problem {
        finding.severity = Severity::Warning;
        finding.seen.push_str(", depending on what cannot be told from here");
    }
    // Where the gate is to take the port, this is so only as long as the server has it.
    if evidence.ours.wants_port_80() && !holds(evidence, picture.server) {
        finding.severity = finding.severity.max(Severity::Warning);
    }
    if finding.severity != Severity::Fine && finding.remedy.is_empty() {
        finding.remedy = match picture.server {
            Server::Haproxy if picture.doors.is_empty() => "set `mode http` for it".to_owned(),
            _ => format!(
                "put the rule below into its files, which hands {CHALLENGE} to {}{}",
                gateway.address,
                listen_there(gateway)
            ),
        };
    }
    finding
}

fn words(fate: &Fate) -> String {
    if fate.words.is_empty() { String::new() } else { format!("`{}` ", fate.words) }
}

fn passed(fate: &Fate) -> Finding {
    Finding::new(
        Cause::ChallengePassed,
        Severity::Fine,
        format!("{}hands challenges to the gate", words(fate)),
    )
}

fn altered(fate: &Fate) -> Finding {
    Finding::new(
        Cause::ChallengeAltered,
        Severity::Problem,
        format!("{}hands challenges to the gate with another Host header or path", words(fate)),
    )
    .means("the gate answers a challenge for the host that it is of, at its path, and for no other")
}

fn misdirected(fate: &Fate, host: &str, port: u16) -> Finding {
    let to = if port == 0 { host.to_owned() } else { format!("{host}:{port}") };
    Finding::new(
        Cause::ChallengeMisdirected,
        Severity::Problem,
        format!("{}sends challenges to {to}, which is not the gate", words(fate)),
    )
    .means("the CA gets an answer that is none, and refuses")
}

fn redirected(fate: &Fate) -> Finding {
    Finding::new(
        Cause::ChallengeRedirected,
        Severity::Problem,
        format!("{}catches challenges too", words(fate)),
    )
    .means("the CA is sent elsewhere, and the gate is not asked")
}

fn denied(fate: &Fate) -> Finding {
    Finding::new(Cause::ChallengeDenied, Severity::Problem, format!("{}refuses challenges too", words(fate)))
        .means("the CA is turned away")
}

fn filtered(fate: &Fate) -> Finding {
    Finding::new(
        Cause::ChallengeFiltered,
        Severity::Warning,
        format!("{}shows challenges to a filter, which may refuse them", words(fate)),
    )
    .means("what it lets through is not written here")
}

fn answered(fate: &Fate) -> Finding {
    Finding::new(
        Cause::ChallengeAnswered,
        Severity::Problem,
        format!("{}answers challenges by itself", words(fate)),
    )
    .means("it does not know the answer: the CA gets 404, or a page that is none")
}

/// Hosts that are on port 80 alone and show something there.
fn http_only(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, (picture, site, place)) in names::on_port_80(evidence) {
        let shows = site
            .page
            .iter()
            .any(|fate| fate.certain && matches!(fate.deed, Deed::Answered | Deed::Passed { .. }));
        let is_taken = site.port_80().is_some_and(|listen| evidence.ours.collides(listen.address));
        if !shows || !is_taken || names::has_tls(evidence, name) {
            continue;
        }
        let is_known = !evidence.ours.is_unknown();
        findings.push(
            Finding::new(
                Cause::HttpOnlySite,
                if is_known { Severity::Problem } else { Severity::Warning },
                format!("{name} is served on port 80 alone"),
            )
            .at(picture.server, place)
            .means("with the gate on port 80 it is lost: it is redirected to https, where nobody answers, or refused")
            .remedy(format!(
                "give it a site on 443 and put \"{name}\" on a certificate first; or leave port 80 to {}, with the rule below",
                picture.server.name()
            )),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::super::super::nginx;
    use super::super::super::ours::{Configuration, OurCertificate, Ours};
    use super::super::super::reading::memory::Memory;
    use super::*;

    /// `SEVERITY CAUSE` of what is found with an nginx that has a site on port 80.
    fn found(gate: &str, port_80: Port80) -> Vec<String> {
        let text = "http { server { listen 80; server_name a.example; return 301 https://a.example/; } }";
        let picture =
            nginx::read("/etc/nginx/nginx.conf", &Memory::new(&[("/etc/nginx/nginx.conf", text)])).unwrap();
        let own = OurCertificate {
            name: "a.example".to_owned(),
            identifiers: vec!["a.example".parse().unwrap()],
            live: "/live/a.example".to_owned(),
            copies: Vec::new(),
        };
        let ours = Ours {
            configuration: Configuration::Good,
            gate: vec![gate.parse().unwrap()],
            certificates: vec![own],
            ..Ours::unknown(Configuration::Missing)
        };
        let gateway = ours.gate_for_others(|_| false);
        let evidence = Evidence {
            pictures: &[picture],
            papers: &BTreeMap::new(),
            ours: &ours,
            gateway: &gateway,
            port_80: &port_80,
            is_enforcing: false,
            now: SystemTime::UNIX_EPOCH,
        };
        judge(&evidence).iter().map(|f| format!("{:?} {}", f.severity, f.cause)).collect()
    }

    #[test]
    fn it_depends_on_who_holds_the_port() {
        let held = |program: &str| Port80::Held { program: program.to_owned(), pid: 7 };
        let (at_80, elsewhere) = ("[::]:80", "127.0.0.1:8080");
        for (gate, port_80, expected) in [
            (
                at_80,
                held("nginx"),
                &["Fine port-80-held", "Problem port-80-contended", "Problem challenge-redirected"][..],
            ),
            (at_80, held("wicketgate"), &["Fine port-80-held", "Problem port-80-contended"]),
            (at_80, held("docker-proxy"), &["Warning port-80-held", "Problem port-80-contended"]),
            (
                at_80,
                Port80::Free,
                &["Fine port-80-free", "Problem port-80-contended", "Warning challenge-redirected"],
            ),
            (elsewhere, held("nginx"), &["Fine port-80-held", "Problem challenge-redirected"]),
            (elsewhere, held("haproxy"), &["Warning port-80-held"]),
            (elsewhere, held("(squid-1)"), &["Warning port-80-held"]),
            (elsewhere, held("caddy"), &["Warning port-80-held"]),
            (elsewhere, held("hitch"), &["Problem port-80-held"]),
            (elsewhere, Port80::HeldUnseen, &["Warning port-80-unknown", "Problem challenge-redirected"]),
            (elsewhere, Port80::NotLooked, &["Fine port-80-unknown", "Problem challenge-redirected"]),
            (elsewhere, Port80::Free, &["Fine port-80-free", "Problem challenge-redirected"]),
        ] {
            assert_eq!(found(gate, port_80.clone()), expected, "{gate} {port_80:?}");
        }
    }
}
