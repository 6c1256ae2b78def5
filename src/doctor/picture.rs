//! What a server's configuration says, in terms that are the same for all of them: sites, each with the
//! names, listeners and files that it has, and what becomes of a request. Every fact has its place. Pure.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::hostname::Hostname;

/// Where the CA comes to (RFC 8555 section 8.3).
pub const CHALLENGE: &str = "/.well-known/acme-challenge/";
/// A request of a CA's, as the readers follow it.
pub(super) const TOKEN: &str = "/.well-known/acme-challenge/w4YtgRkq_UQw7PAcvNeLd3sBdYjO2vGhZ1TLfEaiCkM";
/// A request of anybody's.
pub(super) const PAGE: &str = "/a-page";

/// A server that the doctor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// nginx
    Nginx,
    /// Apache httpd
    Apache,
    /// Squid
    Squid,
    /// HAProxy
    Haproxy,
    /// hitch
    Hitch,
}

impl Server {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 5] = [Self::Nginx, Self::Apache, Self::Squid, Self::Haproxy, Self::Hitch];

    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Apache => "Apache",
            Self::Squid => "Squid",
            Self::Haproxy => "HAProxy",
            Self::Hitch => "hitch",
        }
    }

    /// The server that a process's short name tells.
    pub fn of_program(program: &str) -> Option<Self> {
        match program.trim_matches(|c: char| !c.is_ascii_alphanumeric()) {
            "nginx" => Some(Self::Nginx),
            "apache2" | "httpd" | "apache" => Some(Self::Apache),
            "haproxy" => Some(Self::Haproxy),
            "hitch" => Some(Self::Hitch),
            squid if squid.starts_with("squid") => Some(Self::Squid),
            _ => None,
        }
    }
}

/// A line of a file, counted from 1; 0 stands for the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file's path as the server sees it.
    pub file: Arc<str>,
    /// The line.
    pub line: usize,
}

impl Place {
    pub(super) fn new(file: &Arc<str>, line: usize) -> Self {
        Self { file: file.clone(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::words::printable(&self.file, 400))?;
        if self.line > 0 { write!(f, ":{}", self.line) } else { Ok(()) }
    }
}

/// What one server's files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Whose they are.
    pub server: Server,
    /// The file that everything begins with.
    pub main: String,
    /// Every file that was read.
    pub files: Vec<String>,
    /// Its sites, in the order of the files.
    pub sites: Vec<Site>,
    /// What could not be read or understood.
    pub troubles: Vec<Trouble>,
    /// Where the rule for challenges goes.
    pub doors: Vec<Door>,
}

/// Something in the files that could not be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Where it is said.
    pub place: Place,
    /// What it is.
    pub kind: TroubleKind,
    /// What was seen.
    pub seen: String,
}

/// What kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// A file or folder cannot be read by this user.
    Unreadable,
    /// A file is named and is not there.
    Missing,
    /// The text breaks the server's own rules.
    Broken,
    /// Files include each other, or there is too much of them.
    Endless,
    /// A value depends on something that is not known here.
    Unknown,
}

/// A server block, a virtual host, a frontend, a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Where it begins.
    pub place: Place,
    /// What it answers to; empty where it answers to everything.
    pub names: Vec<Named>,
    /// Where it listens.
    pub listens: Vec<Listen>,
    /// What it shows to TLS clients.
    pub certificates: Vec<Pair>,
    /// What becomes of a CA's request, over plain http: what may happen first, then what happens for certain.
    pub challenge: Vec<Fate>,
    /// What becomes of any other request.
    pub page: Vec<Fate>,
}

impl Site {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            names: Vec::new(),
            listens: Vec::new(),
            certificates: Vec::new(),
            challenge: Vec::new(),
            page: Vec::new(),
        }
    }

    /// The listener at which it takes plain http for the world.
    pub(super) fn port_80(&self) -> Option<&Listen> {
        self.listens.iter().find(|l| l.port == 80 && !l.tls && l.address.is_none_or(|ip| !ip.is_loopback()))
    }

    /// Whether it speaks TLS anywhere.
    pub(super) fn is_tls(&self) -> bool {
        self.listens.iter().any(|l| l.tls)
    }

    /// Whether one of its names fits, or it has none and takes everything.
    pub(super) fn answers(&self, name: &Hostname) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| n.pattern.fits(name))
    }
}

/// A name of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it fits.
    pub pattern: Pattern,
    /// Where it is said.
    pub place: Place,
}

/// What a site's name fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// One host.
    Exact(Hostname),
    /// Every host below this one.
    Below(Hostname),
    /// Everything.
    Any,
    /// A regular expression.
    Regex(String),
    /// What is no host's name, as the server was told it.
    Other(String),
}

impl Pattern {
    /// From the forms that the servers have in common: `a.b`, `*.b`, and everything else.
    pub(super) fn parse(text: &str) -> Self {
        let host = text.trim_end_matches('.');
        if let Some(parent) = host.strip_prefix("*.").and_then(|p| Hostname::parse_any(p).ok()) {
            return Self::Below(parent);
        }
        match Hostname::parse_any(host) {
            Ok(name) => Self::Exact(name),
            Err(_) if host == "*" => Self::Any,
            Err(_) => Self::Other(text.to_owned()),
        }
    }

    pub(super) fn fits(&self, name: &Hostname) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(parent) => {
                name.as_str().strip_suffix(parent.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            Self::Any => true,
            Self::Regex(pattern) => {
                super::truth::regex(pattern, name.as_str(), true) != super::truth::Truth::No
            }
            Self::Other(_) => false,
        }
    }
}

/// An address that a site listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// `None` is every address.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// Where it is said.
    pub place: Place,
}

/// A certificate with its key, as a server is told of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate's file.
    pub certificate: Located,
    /// The key's file; `None` where it is in the certificate's own.
    pub key: Option<Located>,
    /// A file with the rest of the chain, where the server has a word for one.
    pub chain: Option<Located>,
    /// Where no key is named, the certificate's file must have it. A key beside the file may do
    /// (HAProxy's `FILE.key`).
    pub key_beside: bool,
}

/// A path, and where it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Absolute, as the server sees it.
    pub path: String,
    /// Where it is said.
    pub place: Place,
    /// By which word.
    pub directive: String,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// What.
    pub deed: Deed,
    /// It happens for certain; else it depends on what cannot be told from here.
    pub certain: bool,
    /// The line that makes it so.
    pub place: Place,
    /// That line's words.
    pub words: String,
}

/// What a server does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Passed on to another server.
    Passed {
        /// Name or address.
        host: String,
        /// Port; 0 where it is not known.
        port: u16,
        /// The Host header and the path stay as they came.
        faithful: bool,
    },
    /// Sent elsewhere.
    Redirected,
    /// Refused.
    Denied,
    /// Shown to another program, which may refuse or change it.
    Filtered,
    /// Answered by the server itself, from files or otherwise.
    Answered,
}

/// A place for the rule that hands challenges to the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Within what begins at this line, or above it, by the part.
    pub at: Place,
    /// Which part of the rule.
    pub part: DoorPart,
}

/// A part of the rule, by server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorPart {
    /// nginx: in this server block.
    Location {
        /// Rewrites stand outside of its locations, which come first.
        rewrites: bool,
        /// A location for the path that is there already.
        existing: Option<Place>,
    },
    /// Apache: in this virtual host; the modules that are not loaded yet.
    VirtualHost {
        /// As `a2enmod` names them.
        missing: Vec<&'static str>,
        /// It is no virtual host: the rule stands outside of all of them.
        is_main: bool,
    },
    /// Squid: above the first `http_access`; whether a redirector is to be told too.
    Access {
        /// `url_rewrite_program` is there.
        redirector: bool,
    },
    /// Squid: below its `cache_peer`s and above its `cache_peer_access`; the other peers.
    Peer {
        /// Their names.
        others: Vec<String>,
    },
    /// HAProxy: in this frontend, above its rules.
    Frontend {
        /// Lines whose `redirect` has to become `http-request redirect`, with what they become.
        redirects: Vec<(Place, String)>,
        /// Its mode is `tcp`: there is no path to look at.
        is_tcp: bool,
    },
}

/// A picture in few words, for the readers' tests.
#[cfg(test)]
pub(super) fn sketch(picture: &Picture) -> Vec<String> {
    let name = |named: &Named| match &named.pattern {
        Pattern::Exact(name) => name.to_string(),
        Pattern::Below(parent) => format!("*.{parent}"),
        Pattern::Any => "*".to_owned(),
        Pattern::Regex(pattern) => format!("~{pattern}"),
        Pattern::Other(text) => format!("({text})"),
    };
    let listen = |l: &Listen| {
        let address = l.address.map_or("*".to_owned(), |ip| ip.to_string());
        format!("{address}:{}{}", l.port, if l.tls { "s" } else { "" })
    };
    let pair = |p: &Pair| {
        let more =
            p.key.iter().chain(&p.chain).map(|l| format!("+{}@{}", l.path, l.place.line)).collect::<String>();
        format!("{}@{}{more}", p.certificate.path, p.certificate.place.line)
    };
    let fate = |f: &Fate| {
        let deed = match &f.deed {
            Deed::Passed { host, port, faithful } => {
                format!("passed to {host}:{port}{}", if *faithful { "" } else { " altered" })
            }
            Deed::Redirected => "redirected".to_owned(),
            Deed::Denied => "denied".to_owned(),
            Deed::Filtered => "filtered".to_owned(),
            Deed::Answered => "answered".to_owned(),
        };
        format!("{deed}{}@{}", if f.certain { "" } else { "?" }, f.place.line)
    };
    let join = |items: Vec<String>| items.join(" ");
    let of_site = |site: &Site| {
        let parts = [
            ("", join(site.listens.iter().map(listen).collect())),
            ("names ", join(site.names.iter().map(name).collect())),
            ("pem ", join(site.certificates.iter().map(pair).collect())),
            ("challenge ", join(site.challenge.iter().map(fate).collect())),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        format!(
            "{}: {}",
            site.place,
            parts.iter().map(|(k, v)| format!("{k}{v}")).collect::<Vec<_>>().join("; ")
        )
    };
    let troubles = picture.troubles.iter().map(|t| format!("{}! {:?}: {}", t.place, t.kind, t.seen));
    picture.sites.iter().map(of_site).chain(troubles).collect()
}
