//! hitch: from the text of its file to frontends. It speaks TLS alone, and names come from the
//! certificates. Pure.

use std::sync::Arc;

use super::picture::{Listen, Located, Pair, Picture, Place, Server, Site, TroubleKind};
use super::reading::{Files, Reading, absolute};
use super::words::endpoint;
use crate::words::quote::quoted_line;

/// Where it is installed.
pub(super) const MAIN: [&str; 2] = ["/etc/hitch/hitch.conf", "/usr/local/etc/hitch/hitch.conf"];

/// Reads a configuration; `None` where there is none.
pub fn read(main: &str, files: &dyn Files) -> Option<Picture> {
    let mut reading = Reading::new(files);
    let opened = reading.begin(main);
    if opened.is_none() && reading.troubles.is_empty() {
        return None;
    }
    let mut sites = Vec::new();
    if let Some((file, text)) = opened {
        let settings = parse(&file, &text, &mut reading);
        reading.leave();
        sites = frontends(&settings, &mut reading);
    }
    Some(Picture {
        server: Server::Hitch,
        main: main.to_owned(),
        files: reading.read,
        sites,
        troubles: reading.troubles,
        doors: Vec::new(),
    })
}

/// `name = value` or `name = { … }`.
#[derive(Debug, Clone)]
struct Setting {
    name: String,
    value: String,
    inside: Vec<Setting>,
    place: Place,
}

impl Setting {
    fn inner(&self, name: &str) -> Option<&Self> {
        self.inside.iter().find(|setting| setting.name == name)
    }
}

fn frontends(settings: &[Setting], reading: &mut Reading<'_>) -> Vec<Site> {
    let shared = pairs(settings, reading);
    let mut sites = Vec::new();
    for frontend in settings.iter().filter(|setting| setting.name == "frontend") {
        let mut site = Site::new(frontend.place.clone());
        // `[HOST]:PORT+CERTIFICATE`
        let (listen, certificate) = match frontend.value.split_once('+') {
            Some((listen, certificate)) => (listen, Some(certificate)),
            None => (frontend.value.as_str(), None),
        };
        let endpoint = if frontend.inside.is_empty() {
            endpoint(&listen.replace("[*]", "*"), 443)
        } else {
            let host = frontend.inner("host").map_or("*", |s| s.value.as_str());
            let port = frontend.inner("port").and_then(|s| s.value.parse().ok()).unwrap_or(443);
            endpoint(&format!("[{}]:{port}", host.trim_matches(['[', ']'])), port)
        };
        let Some((address, port)) = endpoint else { continue };
        site.listens.push(Listen { address, port, tls: true, place: frontend.place.clone() });
        site.certificates = pairs(&frontend.inside, reading);
        if let Some(path) = certificate {
            site.certificates.push(pair(path, "frontend", &frontend.place, None));
        }
        site.certificates.extend(shared.iter().cloned());
        sites.push(site);
    }
    if sites.is_empty() && !shared.is_empty() {
        // Without a frontend it listens on every address, port 8443.
        let place = shared[0].certificate.place.clone();
        let mut site = Site::new(place.clone());
        site.listens.push(Listen { address: None, port: 8443, tls: true, place });
        site.certificates = shared;
        sites.push(site);
    }
    sites
}

fn pair(path: &str, directive: &str, place: &Place, key: Option<&Setting>) -> Pair {
    let located = |path: &str, place: &Place, directive: &str| Located {
        path: absolute("/", path),
        place: place.clone(),
        directive: directive.to_owned(),
    };
    Pair {
        certificate: located(path, place, directive),
        key: key.map(|key| located(&key.value, &key.place, "private-key")),
        chain: None,
        key_beside: false,
    }
}

fn pairs(settings: &[Setting], reading: &mut Reading<'_>) -> Vec<Pair> {
    let mut found = Vec::new();
    for setting in settings {
        match setting.name.as_str() {
            "pem-file" => match setting.inner("cert") {
                Some(cert) => {
                    found.push(pair(&cert.value, "pem-file", &cert.place, setting.inner("private-key")));
                }
                None if setting.inside.is_empty() => {
                    found.push(pair(&setting.value, "pem-file", &setting.place, None));
                }
                None => {
                    let seen = "a `pem-file` block without `cert`".to_owned();
                    reading.trouble(&setting.place, TroubleKind::Broken, seen);
                }
            },
            "pem-dir" => {
                let filter =
                    settings.iter().find(|s| s.name == "pem-dir-glob").map_or("*", |s| s.value.as_str());
                let folder = absolute("/", setting.value.trim_end_matches('/'));
                let troubles = reading.troubles.len();
                match reading.folder(&folder, &setting.place) {
                    Some(entries) => {
                        for entry in
                            entries.iter().filter(|e| !e.is_folder && crate::glob::fits(filter, &e.name))
                        {
                            let path = format!("{folder}/{}", entry.name);
                            found.push(pair(&path, "pem-dir", &setting.place, None));
                        }
                    }
                    None if reading.troubles.len() == troubles => {
                        let seen = format!("{folder} does not exist, or is no folder");
                        reading.trouble(&setting.place, TroubleKind::Missing, seen);
                    }
                    None => {}
                }
            }
            _ => {}
        }
    }
    found
}

fn parse(file: &Arc<str>, text: &str, reading: &mut Reading<'_>) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut open: Option<Setting> = None;
    for (i, line) in text.lines().enumerate() {
        let place = Place::new(file, i + 1);
        let line = uncommented(line).trim();
        // A block may stand on one line: `pem-file = { cert = "a" }`.
        let mut rest = line;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('}') {
                match open.take() {
                    Some(block) => settings.push(block),
                    None => reading.trouble(&place, TroubleKind::Broken, "a `}` closes nothing".to_owned()),
                }
                rest = after.trim_start();
                continue;
            }
            let Some((name, value)) = rest.split_once('=') else {
                let seen = format!("`{}` has no `=`", quoted_line(rest, 80));
                reading.trouble(&place, TroubleKind::Broken, seen);
                break;
            };
            let (name, value) = (name.trim().trim_matches('"').to_owned(), value.trim_start());
            let new = |value: String| Setting {
                name: name.clone(),
                value,
                inside: Vec::new(),
                place: place.clone(),
            };
            if let Some(after) = value.strip_prefix('{') {
                if let Some(block) = open.replace(new(String::new())) {
                    let seen = format!("the block of `{}` is not closed by `}}`", block.name);
                    reading.trouble(&block.place, TroubleKind::Broken, seen);
                    settings.push(block);
                }
                rest = after.trim_start();
                continue;
            }
            let (value, after) = value_of(value);
            let setting = new(value);
            match &mut open {
                Some(block) => block.inside.push(setting),
                None => settings.push(setting),
            }
            rest = after.trim_start();
        }
    }
    if let Some(block) = open {
        let seen = format!("the block of `{}` is not closed by `}}`", block.name);
        reading.trouble(&block.place, TroubleKind::Broken, seen);
        settings.push(block);
    }
    settings
}

/// A value and what follows it on the line.
fn value_of(text: &str) -> (String, &str) {
    if let Some(rest) = text.strip_prefix('"') {
        return match rest.split_once('"') {
            Some((value, after)) => (value.to_owned(), after),
            None => (rest.to_owned(), ""),
        };
    }
    let end = text.find('}').unwrap_or(text.len());
    (text[..end].trim().to_owned(), &text[end..])
}

/// A line up to a `#` that is in no quotes.
fn uncommented(line: &str) -> &str {
    let mut is_quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests;
