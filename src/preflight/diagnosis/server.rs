//! Which program made an answer, by the marks it left, and how that program is told to let challenges
//! through. Pure.

use crate::preflight::sighting::Answer;
use crate::words::printable;

/// A program that is known by its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Squid,
    Nginx,
    Apache,
    Cloudflare,
    Caddy,
    Haproxy,
    Iis,
    Lighttpd,
    LiteSpeed,
    Traefik,
    Varnish,
    Envoy,
    CloudFront,
    LoadBalancer,
    Akamai,
    Sucuri,
}

/// Who made an answer, as far as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Maker {
    /// The program, where it is known.
    pub(super) server: Option<Server>,
    /// The marks, for a sentence; empty where there are none.
    pub(super) marks: String,
}

/// What `Server` begins with, in lower case.
const BY_SERVER: [(&str, Server); 18] = [
    ("squid", Server::Squid),
    ("nginx", Server::Nginx),
    ("openresty", Server::Nginx),
    ("tengine", Server::Nginx),
    ("angie", Server::Nginx),
    ("apache", Server::Apache),
    ("cloudflare", Server::Cloudflare),
    ("caddy", Server::Caddy),
    ("haproxy", Server::Haproxy),
    ("microsoft-", Server::Iis),
    ("lighttpd", Server::Lighttpd),
    ("litespeed", Server::LiteSpeed),
    ("traefik", Server::Traefik),
    ("varnish", Server::Varnish),
    ("envoy", Server::Envoy),
    ("cloudfront", Server::CloudFront),
    ("awselb", Server::LoadBalancer),
    ("akamaighost", Server::Akamai),
];

/// What only one program's own pages say.
const BY_BODY: [(&str, Server); 5] = [
    ("Request forbidden by administrative rules.", Server::Haproxy),
    ("No server is available to handle this request.", Server::Haproxy),
    ("The server returned an invalid or incomplete response.", Server::Haproxy),
    ("Guru Meditation", Server::Varnish),
    ("<center>nginx", Server::Nginx),
];

/// Finds out who made an answer.
pub(super) fn maker(answer: &Answer) -> Maker {
    let marks: Vec<_> = ["server", "x-squid-error", "via", "cf-mitigated", "x-powered-by"]
        .iter()
        .filter_map(|name| Some(format!("`{name}: {}`", printable(answer.header(name)?, 80))))
        .collect();
    Maker { server: recognise(answer), marks: marks.join(", ") }
}

fn recognise(answer: &Answer) -> Option<Server> {
    let has = |name: &str| answer.header(name).is_some();
    // Squid adds this to answers of its own making alone.
    if has("x-squid-error") {
        return Some(Server::Squid);
    }
    if has("cf-mitigated") {
        return Some(Server::Cloudflare);
    }
    let server = answer.header("server").unwrap_or_default().to_ascii_lowercase();
    if let Some((_, known)) = BY_SERVER.iter().find(|(begin, _)| server.starts_with(begin)) {
        return Some(*known);
    }
    let body = String::from_utf8_lossy(&answer.body);
    if let Some((_, known)) = BY_BODY.iter().find(|(words, _)| body.contains(words)) {
        return Some(*known);
    }
    let via = answer.header("via").unwrap_or_default().to_ascii_lowercase();
    [
        (has("cf-ray"), Server::Cloudflare),
        (has("x-amz-cf-id"), Server::CloudFront),
        (has("x-sucuri-id"), Server::Sucuri),
        (has("x-envoy-upstream-service-time"), Server::Envoy),
        (via.contains("squid"), Server::Squid),
        (has("x-varnish") || via.contains("varnish"), Server::Varnish),
        (via.contains("caddy"), Server::Caddy),
        (answer.body == b"404 page not found\n", Server::Traefik),
    ]
    .into_iter()
    .find_map(|(is_it, server)| is_it.then_some(server))
}

impl Server {
    /// Its name in a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Squid => "Squid",
            Self::Nginx => "nginx",
            Self::Apache => "Apache",
            Self::Cloudflare => "Cloudflare",
            Self::Caddy => "Caddy",
            Self::Haproxy => "HAProxy",
            Self::Iis => "IIS",
            Self::Lighttpd => "lighttpd",
            Self::LiteSpeed => "LiteSpeed",
            Self::Traefik => "Traefik or another program written in Go",
            Self::Varnish => "Varnish",
            Self::Envoy => "Envoy",
            Self::CloudFront => "CloudFront",
            Self::LoadBalancer => "the load balancer",
            Self::Akamai => "Akamai",
            Self::Sucuri => "Sucuri",
        }
    }

    /// How it is told to pass challenges on to the gate at `gate` (`HOST:PORT`).
    pub(super) fn pass(self, gate: &str) -> String {
        let path = "/.well-known/acme-challenge/";
        match self {
            Self::Squid => format!(
                "in squid.conf, above every `http_access deny` (URL filters and redirectors included), write `acl acme urlpath_regex ^{path}` and `http_access allow acme`, and send it to {gate} with a `cache_peer` and `cache_peer_access … allow acme`; then `squid -k reconfigure`"
            ),
            Self::Nginx => format!(
                "in the `server` for port 80 write `location ^~ {path} {{ auth_basic off; allow all; proxy_pass http://{gate}; proxy_set_header Host $host; }}`, and move any `return` or `rewrite` that stands outside of a location into `location /`; then `nginx -s reload`"
            ),
            Self::Apache => format!(
                "in the `<VirtualHost *:80>` write `ProxyPreserveHost On` and, above every other ProxyPass, Alias and RewriteRule, `ProxyPass {path} http://{gate}{path}`, with `<Location {path}> Require all granted </Location>`; then `apachectl graceful`"
            ),
            Self::Cloudflare => format!(
                "in Cloudflare's dashboard add a rule that skips the firewall, \"Under Attack\" mode, bot checks, the cache and redirects for URIs that start with `{path}`; or set the record to \"DNS only\""
            ),
            Self::Caddy => format!(
                "in the Caddyfile give `http://` of this host a `handle {path}* {{ reverse_proxy {gate} }}`; then `caddy reload`"
            ),
            Self::Haproxy => format!(
                "in the frontend for port 80 write, above every `http-request deny`, `acl acme path_beg {path}`, `http-request allow if acme` and `use_backend acme if acme`, and give the backend `acme` a `server gate {gate}`; then reload HAProxy"
            ),
            Self::Iis => format!(
                "let URL Rewrite with Application Request Routing send `{path}*` to http://{gate}, above every other rule, or give port 80 to the gate"
            ),
            Self::Lighttpd => format!(
                "write `$HTTP[\"url\"] =~ \"^{path}\" {{ proxy.server = ( \"\" => ( ( \"host\" => \"…\", \"port\" => … ) ) ) }}` with the gate's address ({gate}) above other conditions; then reload lighttpd"
            ),
            Self::LiteSpeed => format!("add a proxy context for `{path}` that leads to http://{gate}"),
            Self::Traefik => format!(
                "where it is Traefik: give its entry point on port 80 a router with the rule PathPrefix(`{path}`), a high priority and a service that leads to http://{gate}; else have that program pass the path on to it"
            ),
            Self::Varnish => format!(
                "in `vcl_recv`, before anything else, write `if (req.url ~ \"^{path}\") {{ set req.backend_hint = gate; return (pass); }}` with a backend `gate` at {gate}"
            ),
            Self::Envoy => format!(
                "put a route for the prefix `{path}` first, to a cluster that leads to {gate}, free of RBAC and external authorization"
            ),
            Self::CloudFront => format!(
                "add a cache behaviour for `{path}*`, without cache, that allows http and forwards Host, to an origin that leads to {gate}"
            ),
            Self::LoadBalancer => format!(
                "add a listener rule for `{path}*` on port 80 with a target group that leads to {gate}"
            ),
            Self::Akamai | Self::Sucuri => format!(
                "exempt `{path}*` from the firewall, the cache and redirects there, and let it through to {gate}"
            ),
        }
    }
}

impl Maker {
    /// `nginx (`server: nginx/1.22.1`)`, or what else can be said.
    pub(super) fn describe(&self) -> String {
        match (self.server, self.marks.as_str()) {
            (Some(server), "") => server.name().to_owned(),
            (Some(server), marks) => format!("{} ({marks})", server.name()),
            (None, "") => "a program that does not say its name".to_owned(),
            (None, marks) => format!("a program that says {marks}"),
        }
    }

    /// How it is told to pass challenges on.
    pub(super) fn pass(&self, gate: &str) -> String {
        match self.server {
            Some(server) => server.pass(gate),
            None => format!(
                "have the program that answers there pass `/.well-known/acme-challenge/` on to {gate} with the Host header unchanged, or give port 80 to the gate"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn answer(headers: &[(&str, &str)], body: &str) -> Answer {
        Answer {
            status: StatusCode::FORBIDDEN,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: body.into(),
            more: false,
        }
    }

    #[test]
    fn programs_are_known_by_their_marks() {
        for (headers, body, expected) in [
            (
                &[("server", "squid/5.7"), ("x-squid-error", "ERR_ACCESS_DENIED 0")][..],
                "",
                Some(Server::Squid),
            ),
            (&[("server", "nginx"), ("via", "1.1 cache (squid/5.7)")], "", Some(Server::Nginx)),
            (&[("via", "1.1 cache (squid/5.7)")], "", Some(Server::Squid)),
            (&[("server", "Apache/2.4.66 (Debian)")], "", Some(Server::Apache)),
            (&[("server", "cloudflare"), ("cf-ray", "x")], "", Some(Server::Cloudflare)),
            (&[("server", "nginx"), ("cf-mitigated", "challenge")], "", Some(Server::Cloudflare)),
            (&[("server", "Caddy")], "", Some(Server::Caddy)),
            (&[("server", "Microsoft-IIS/10.0")], "", Some(Server::Iis)),
            (&[("server", "lighttpd/1.4")], "", Some(Server::Lighttpd)),
            (
                &[],
                "<h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n",
                Some(Server::Haproxy),
            ),
            (&[], "404 page not found\n", Some(Server::Traefik)),
            (&[("x-varnish", "32770")], "", Some(Server::Varnish)),
            (&[("server", "envoy")], "", Some(Server::Envoy)),
            (&[("server", "awselb/2.0")], "", Some(Server::LoadBalancer)),
            (&[("server", "gunicorn")], "", None),
            (&[], "", None),
        ] {
            assert_eq!(maker(&answer(headers, body)).server, expected, "{headers:?} {body}");
        }
    }

    #[test]
    fn who_it_was_is_said_on_one_clean_line() {
        let told = |headers: &[(&str, &str)]| maker(&answer(headers, "")).describe();
        assert_eq!(told(&[("server", "nginx/1.22.1")]), "nginx (`server: nginx/1.22.1`)");
        assert_eq!(told(&[("server", "a\u{1b}[2Jb")]), "a program that says `server: a [2Jb`");
        assert_eq!(told(&[]), "a program that does not say its name");
    }
}
