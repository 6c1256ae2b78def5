//! The exact lines that hand `/.well-known/acme-challenge/` to the gate, for the server that holds port
//! 80, and where they go. Pure.

use super::finding::{How, Rule};
use super::picture::{CHALLENGE, DoorPart, Picture, Server};
use crate::words::quote::hidden;

/// The rule for a server whose sites are on port 80; `gate` is `HOST:PORT`. hitch has none: it speaks TLS
/// alone.
pub fn rules(picture: &Picture, gate: &str) -> Vec<Rule> {
    match picture.server {
        Server::Nginx => nginx(picture, gate),
        Server::Apache => apache(picture, gate),
        Server::Squid => squid(picture, gate),
        Server::Haproxy => haproxy(picture, gate),
        Server::Hitch => Vec::new(),
    }
}

/// The path as a regular expression.
const PATTERN: &str = r"^/\.well-known/acme-challenge/";

fn nginx(picture: &Picture, gate: &str) -> Vec<Rule> {
    let location = format!(
        "location ^~ {CHALLENGE} {{\n    auth_basic off;\n    allow all;\n    proxy_pass http://{gate};\n    proxy_set_header Host $host;\n    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n}}\n"
    );
    // Rewrites outside of locations come before any of them.
    let with_break = format!("if ($uri ~ {PATTERN}) {{ break; }}\n{location}");
    let mut rules: Vec<Rule> = Vec::new();
    for door in &picture.doors {
        let DoorPart::Location { rewrites, existing } = &door.part else { continue };
        let lines = if *rewrites { &with_break } else { &location };
        let note = existing
            .as_ref()
            .map_or_else(String::new, |at| format!("take out the location for that path which is at {at}"));
        add(&mut rules, Server::Nginx, How::Within, door.at.to_string(), note, lines);
    }
    rules
}

fn apache(picture: &Picture, gate: &str) -> Vec<Rule> {
    let lines = format!(
        "<IfModule rewrite_module>\n    RewriteRule {PATTERN} - [END]\n</IfModule>\nProxyPreserveHost On\nProxyPass {CHALLENGE} http://{gate}{CHALLENGE}\n<If \"%{{REQUEST_URI}} =~ m#{PATTERN}#\">\n    Require all granted\n</If>\n"
    );
    let mut rules: Vec<Rule> = Vec::new();
    for door in &picture.doors {
        let DoorPart::VirtualHost { missing, is_main } = &door.part else { continue };
        let note = match missing.as_slice() {
            [] => String::new(),
            missing => format!("it needs modules that are not loaded: `a2enmod {}`", missing.join(" ")),
        };
        let how = if *is_main { How::Above } else { How::Within };
        add(&mut rules, Server::Apache, how, door.at.to_string(), note, &lines);
    }
    rules
}

fn squid(picture: &Picture, gate: &str) -> Vec<Rule> {
    let (host, port) = gate.rsplit_once(':').unwrap_or((gate, "80"));
    let host = host.trim_matches(['[', ']']);
    let mut rules = Vec::new();
    for door in &picture.doors {
        let mut note = "";
        let lines = match &door.part {
            DoorPart::Access { redirector } => {
                let mut lines =
                    format!("acl wicketgate urlpath_regex {PATTERN}\nhttp_access allow wicketgate\n");
                if *redirector {
                    lines.push_str("url_rewrite_access deny wicketgate\n");
                }
                lines
            }
            DoorPart::Peer { others } => {
                // No option of `cache_peer` that was tried spares the first request to a peer that was held for dead.
                note = "keep the gate always open (`wicketgate run`), and start it before Squid: one that Squid could not reach is dead to it, and the first request after that fails";
                let mut lines = format!(
                    "cache_peer {host} parent {port} 0 no-query no-digest no-netdb-exchange originserver name=wicketgate\ncache_peer_access wicketgate allow wicketgate\ncache_peer_access wicketgate deny all\n"
                );
                for other in others.iter().filter(|other| *other != "wicketgate") {
                    lines.push_str(&format!("cache_peer_access {other} deny wicketgate\n"));
                }
                lines.push_str("never_direct allow wicketgate\ncache deny wicketgate\n");
                lines
            }
            _ => continue,
        };
        add(&mut rules, Server::Squid, How::Above, door.at.to_string(), note.to_owned(), &lines);
    }
    rules
}

fn haproxy(picture: &Picture, gate: &str) -> Vec<Rule> {
    let lines = format!(
        "    acl wicketgate path_beg {CHALLENGE}\n    http-request allow if wicketgate\n    use_backend wicketgate if wicketgate\n"
    );
    let mut rules: Vec<Rule> = Vec::new();
    let mut edits = Vec::new();
    for door in &picture.doors {
        let DoorPart::Frontend { redirects, is_tcp: false } = &door.part else { continue };
        add(&mut rules, Server::Haproxy, How::Above, door.at.to_string(), String::new(), &lines);
        // A `redirect` is looked at whatever `http-request allow` says; an `http-request redirect` is not.
        for (place, becomes) in redirects {
            let shown = hidden(becomes);
            let note = match shown == *becomes {
                true => String::new(),
                false => "a password is not shown: it stays as it is".to_owned(),
            };
            edits.push(Rule {
                server: Server::Haproxy,
                how: How::InsteadOf,
                places: vec![place.to_string()],
                note,
                lines: format!("{shown}\n"),
            });
        }
    }
    if rules.is_empty() {
        return rules;
    }
    rules.extend(edits);
    rules.push(Rule {
        server: Server::Haproxy,
        how: How::AtEnd,
        places: vec![picture.main.clone()],
        note: String::new(),
        lines: format!("backend wicketgate\n    mode http\n    option forwardfor\n    server gate {gate}\n"),
    });
    rules
}

/// Adds a part, or its place to one that is the same.
fn add(rules: &mut Vec<Rule>, server: Server, how: How, place: String, note: String, lines: &str) {
    match rules.iter_mut().find(|rule| rule.how == how && rule.note == note && rule.lines == lines) {
        Some(rule) => rule.places.push(place),
        None => rules.push(Rule { server, how, places: vec![place], note, lines: lines.to_owned() }),
    }
}
