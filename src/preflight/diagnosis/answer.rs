//! An answer over HTTP, judged: the status, then the body. Pure.

use std::net::IpAddr;

use http::StatusCode;

use super::address::{EXEMPT, Verdict, Weight, quoted};
use super::server::{self, Maker, Server};
use super::{Cause, Surroundings};
use crate::preflight::sighting::{Answer, Sighting};
use crate::words::printable;

/// What servers say to plain HTTP on a port where they speak TLS.
const TLS_ONLY: [&str; 4] = [
    "plain HTTP request was sent to HTTPS port",
    "speaking plain HTTP to an SSL-enabled server port",
    "sent an HTTP request to an HTTPS server",
    "requires TLS",
];

/// What a gate says: a refusal of a token, of a host, of a request.
const GATE_SAYS: [&[u8]; 3] = [b"404 no such challenge\n", b"421 not served here\n", b"400 bad request\n"];

pub(super) fn judge(
    sighting: &Sighting,
    answer: &Answer,
    expected: &[u8],
    surroundings: &Surroundings,
) -> Verdict {
    let maker = server::maker(answer);
    let verdict = match answer.status {
        StatusCode::OK => of_body(sighting, answer, expected, &maker, surroundings),
        _ => of_status(answer, &maker, surroundings),
    };
    if verdict.weight == Weight::Wrong { astray(sighting, verdict) } else { verdict }
}

/// A wrong answer at the end of redirects that have lost the challenge's path or host is the redirects'
/// doing.
fn astray(sighting: &Sighting, verdict: Verdict) -> Verdict {
    let (Some(first), Some(last)) = (sighting.places.first(), sighting.places.last()) else { return verdict };
    if sighting.places.len() == 1 {
        return verdict;
    }
    if first.path == last.path && first.host == last.host {
        let remedy = format!("{EXEMPT}; or repair what answers after the redirect: {}", verdict.remedy);
        return Verdict { remedy, ..verdict };
    }
    Verdict {
        cause: Cause::RedirectElsewhere,
        weight: verdict.weight,
        seen: verdict.seen,
        means: format!("the redirect leads away from the challenge: {}", verdict.means),
        remedy: EXEMPT.to_owned(),
    }
}

fn of_status(answer: &Answer, maker: &Maker, surroundings: &Surroundings) -> Verdict {
    let status = answer.status;
    let seen = format!("answered {}, and it is {}", named(status), maker.describe());
    let gate = surroundings.forward_to();
    let body = String::from_utf8_lossy(&answer.body);
    let make = |cause, means: &str, remedy: String| Verdict {
        cause,
        weight: Weight::Wrong,
        seen: seen.clone(),
        means: means.to_owned(),
        remedy,
    };
    if TLS_ONLY.iter().any(|words| body.contains(words)) {
        return make(
            Cause::TlsOnPort80,
            "it wants TLS on port 80, where the CA speaks plain HTTP",
            format!("take `ssl` or `tls` off the listener for port 80; then {}", maker.pass(&gate)),
        );
    }
    if GATE_SAYS.contains(&answer.body.as_slice()) {
        return Verdict {
            seen: format!("answered {} with the words of a gate: {}", named(status), quoted(&answer.body)),
            ..make(
                Cause::OtherGate,
                "another wicketgate answers there, one left over or on another machine, and it does not know this one's challenges",
                "stop the other one, or have the name lead to this machine; behind several machines, have all of them pass `/.well-known/acme-challenge/` on to one gate; if this gate is behind a proxy that changes the Host header, have it kept".to_owned(),
            )
        };
    }
    match status.as_u16() {
        403 => make(Cause::Forbidden, forbidden(maker), maker.pass(&gate)),
        404 | 410 => make(
            Cause::NotFound,
            "another program has port 80 for this name and looks for a file in a document root of its own",
            maker.pass(&gate),
        ),
        401 | 407 => make(
            Cause::LoginWall,
            "a log-in is asked for, and the CA has none",
            format!("take the challenges out of the password protection: {}", maker.pass(&gate)),
        ),
        421 => make(
            Cause::Misdirected,
            "the server that has port 80 does not know this host",
            format!("add the name to that server, or: {}", maker.pass(&gate)),
        ),
        429 => Verdict {
            weight: Weight::Inconclusive,
            ..make(
                Cause::TooManyRequests,
                "a rate limit has stopped this machine; it may stop the CA, which comes several times at once",
                format!("take `/.well-known/acme-challenge/` out of the rate limit: {}", maker.pass(&gate)),
            )
        },
        502..=504 => make(
            Cause::BadGateway,
            "a proxy is in front, and it does not reach what it passes requests on to",
            format!(
                "make sure that it passes `/.well-known/acme-challenge/` on to the gate and that the gate is up there ({gate}): {}",
                maker.pass(&gate)
            ),
        ),
        500.. => make(
            Cause::ServerError,
            "a server or an application behind port 80 failed with the request, which is not meant for it",
            maker.pass(&gate),
        ),
        _ => make(
            Cause::OtherStatus,
            "another program has port 80 for this name, and the CA takes status 200 alone",
            maker.pass(&gate),
        ),
    }
}

fn forbidden(maker: &Maker) -> &'static str {
    match maker.server {
        Some(Server::Squid) => "Squid's access rules or a URL filter behind it forbid the challenge",
        Some(Server::Cloudflare | Server::CloudFront | Server::Akamai | Server::Sucuri) => {
            "a firewall in the cloud takes the request for an attack; the CA's may look the same to it"
        }
        _ => "an access rule or a filter forbids the challenge",
    }
}

fn of_body(
    sighting: &Sighting,
    answer: &Answer,
    expected: &[u8],
    maker: &Maker,
    surroundings: &Surroundings,
) -> Verdict {
    let body = answer.body.as_slice();
    if body == expected && !answer.more {
        return right(sighting);
    }
    let gate = surroundings.forward_to();
    let begins = format!("answered 200 with {}, and it is {}", quoted(body), maker.describe());
    let make = |cause, means: &str, remedy: String| Verdict {
        cause,
        weight: Weight::Wrong,
        seen: begins.clone(),
        means: means.to_owned(),
        remedy,
    };
    if body
        .strip_prefix(expected)
        .is_some_and(|rest| !answer.more && rest.iter().all(u8::is_ascii_whitespace))
    {
        return Verdict {
            weight: Weight::Inconclusive,
            seen: format!(
                "answered with the canary and white space after it, and it is {}",
                maker.describe()
            ),
            ..make(
                Cause::TrailingWhitespace,
                "something between the CA and the gate adds to the answer; some CAs overlook white space at its end (RFC 8555 section 8.3 asks them to), others do not",
                "have the proxy in front pass answers on unchanged: no filter, no compression, no template"
                    .to_owned(),
            )
        };
    }
    let token = expected.split(|b| *b == b'.').next().unwrap_or_default();
    if body.strip_prefix(token).is_some_and(is_thumbprint) {
        return make(
            Cause::OtherClient,
            "another ACME client answers every challenge with its own account's key",
            format!(
                "take its answer for `/.well-known/acme-challenge/` away (a `return 200 \"$1.…\"` or `http-request return` in the server's configuration); then {}",
                maker.pass(&gate)
            ),
        );
    }
    let is_html = is_html(body);
    if !is_html && (answer.more || body.len() > expected.len() && body.starts_with(expected)) {
        return make(
            Cause::TooLarge,
            "the answer is longer than a key authorization, and the CA rejects it",
            maker.pass(&gate),
        );
    }
    if is_html {
        return make(
            Cause::HtmlPage,
            "another program answers with a page: a home page for every path, a parked domain, a maintenance or log-in page",
            maker.pass(&gate),
        );
    }
    make(
        Cause::WrongBody,
        "another program has port 80 for this name and answers by itself",
        maker.pass(&gate),
    )
}

fn right(sighting: &Sighting) -> Verdict {
    let targets = &sighting.places[1..];
    let own = &sighting.places[0].host;
    let bare = targets.iter().find(|place| place.host.parse::<IpAddr>().is_ok() && place.host != *own);
    match bare {
        Some(place) => Verdict {
            cause: Cause::RedirectToAddress,
            weight: Weight::Inconclusive,
            seen: "answered with the canary".to_owned(),
            means: format!(
                "the challenge is redirected to the bare address {}, and not every CA follows there (Let's Encrypt does not)",
                printable(&place.host, 60)
            ),
            remedy: "redirect to a name, or better: ".to_owned() + EXEMPT,
        },
        None => Verdict {
            cause: Cause::Answered,
            weight: Weight::Fine,
            seen: "answered with the canary".to_owned(),
            means: "the gate is there, for requests from inside at least".to_owned(),
            remedy: String::new(),
        },
    }
}

/// `.` and 43 characters of base64url, white space allowed after them.
fn is_thumbprint(rest: &[u8]) -> bool {
    let Some(rest) = rest.trim_ascii_end().strip_prefix(b".") else { return false };
    rest.len() == 43 && rest.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn is_html(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    ["<!doctype html", "<html", "<head", "<body", "<h1", "<title"].iter().any(|tag| text.contains(tag))
}

/// `403 Forbidden`
fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}
