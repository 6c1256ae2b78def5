//! `[notify]`, checked. A webhook's path and a password may be secrets, so no message here repeats them.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use http::Uri;

use super::acme::{existing_file, without_credentials};
use super::deploy::command;
use super::problem::seen;
use super::section::Section;
use super::{Mail, MailSecurity, Notify};
use crate::hostname::Hostname;

/// Most addresses that a notice is mailed to.
const MAX_RECIPIENTS: usize = 20;

pub(super) fn notify(root: &Section<'_>) -> Notify {
    let section = root.table("notify");
    let default = Notify::default();
    let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
    let webhook = section.entry("webhook").and_then(|entry| entry.parsed(webhook));
    let webhook_roots = existing_file(&section, "webhook-roots", "name a PEM file with the webhook's root");
    if webhook_roots.is_some() && section.entry("webhook").is_none() {
        section.refuse_missing("webhook", "missing, though `webhook-roots` is set; write it, or remove that");
    }
    Notify {
        expiring_below: section.parsed("expiring-below", default.expiring_below, fraction),
        quiet: section.duration("quiet", default.quiet, minute..=30 * day),
        command: section.entry("command").map(|entry| command(&entry)),
        webhook,
        webhook_roots,
        mail: mail(&section),
    }
}

/// A part of a whole: `1/4`, `0.25` or `25%`.
fn fraction(text: &str) -> Result<f64, String> {
    let written = text.trim();
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        text.parse::<f64>().ok().filter(|_| is_plain)
    };
    let value = if let Some(percent) = written.strip_suffix('%') {
        number(percent.trim_end()).map(|n| n / 100.0)
    } else if let Some((above, below)) = written.split_once('/') {
        number(above.trim()).zip(number(below.trim())).map(|(above, below)| above / below)
    } else {
        number(written)
    };
    match value {
        Some(value) if value > 0.0 && value < 1.0 => Ok(value),
        Some(_) => Err(format!(
            "{} is not between nothing and the whole lifetime; write a part of it, as in \"1/4\"",
            seen(text)
        )),
        None => Err(format!("{} is no fraction; write it as in \"1/4\", \"0.25\" or \"25%\"", seen(text))),
    }
}

fn webhook(text: &str) -> Result<Uri, String> {
    let shown = scheme_and_host(text);
    let url: Uri = text.parse().map_err(|_| {
        format!("{shown} is no URL; write the whole of it, as in \"https://chat.example.net/hooks/…\"")
    })?;
    let authority = url.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(format!(
            "{shown} has a user name or a password in it, which is not sent; use a webhook whose secret is in its path"
        ));
    }
    let host = url.host().unwrap_or_default();
    if host.is_empty() || authority.ends_with(':') {
        return Err(format!("{shown} names no host; write it as in \"https://chat.example.net/hooks/…\""));
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback(host) => Ok(url),
        Some("http") => Err(format!(
            "{shown} is not https, so everybody on the way could read its secret; write the https:// URL (http:// is for this machine only)"
        )),
        _ => Err(format!("{shown} is no web address; write an https:// URL")),
    }
}

/// What may be shown of a URL whose path is a secret.
fn scheme_and_host(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "this".to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host);
    seen(&format!("{scheme}://{host}/…"))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn mail(notify: &Section<'_>) -> Option<Mail> {
    let section = notify.table("mail");
    if !section.is_present() {
        return None;
    }
    for (name, example) in
        [("to", "[\"ops@example.net\"]"), ("from", "\"gate@example.net\""), ("smtp", "\"mail.example.net\"")]
    {
        if section.entry(name).is_none() {
            let message = format!("missing; mail needs it, as in `{name} = {example}`");
            section.refuse_missing(name, &message);
        }
    }
    let to = recipients(&section);
    let from = section.entry("from").and_then(|entry| entry.parsed(address));
    let server = section.entry("smtp").and_then(|entry| entry.parsed(server));
    let user = section.entry("user").and_then(|entry| entry.parsed(user));
    // What stands there may be the password itself, by mistake: the message does not repeat it.
    let remedy = "write the path of a file that holds the password; the password itself does not belong here";
    let password_file = existing_file(&section, "password-file", remedy);
    let (has_user, has_password) =
        (section.entry("user").is_some(), section.entry("password-file").is_some());
    if has_user != has_password {
        let (missing, present) = if has_user { ("password-file", "user") } else { ("user", "password-file") };
        let message = format!("missing, though `{present}` is set; a login needs both, no login neither");
        section.refuse_missing(missing, &message);
    }
    if let (Some(file), Some(entry)) = (&password_file, section.entry("password-file"))
        && std::fs::metadata(file).is_ok_and(|meta| meta.mode() & 0o007 != 0)
    {
        let message = format!(
            "every user of this machine may read the password; run `chmod o= {}`, so that only wicketgate's user may",
            file.display()
        );
        entry.warn(&message);
    }
    let roots = existing_file(&section, "roots", "name a PEM file with the mail server's root");
    let (host, port, security) = server?;
    if security == MailSecurity::None
        && let Some(entry) = section.entry("roots")
    {
        entry.refuse(
            "without TLS no certificate is looked at; remove the key, or write `smtps://` or `smtp://`",
        );
    }
    Some(Mail { to, from: from?, host, port, security, user, password_file, roots })
}

fn recipients(section: &Section<'_>) -> Vec<String> {
    let Some(entry) = section.entry("to") else { return Vec::new() };
    match entry.items().len() {
        0 => entry.refuse("an empty list; write at least one address, as in `to = [\"ops@example.net\"]`"),
        count if count > MAX_RECIPIENTS => {
            entry.refuse(&format!(
                "{count} addresses; write {MAX_RECIPIENTS} at most, or the address of a mailing list"
            ));
            return Vec::new();
        }
        _ => {}
    }
    let mut to = Vec::new();
    for (entry, address) in section.each("to", address) {
        if to.contains(&address) {
            entry.refuse(&format!("{} is listed twice; keep it once", seen(&address)));
        } else {
            to.push(address);
        }
    }
    to
}

/// A mail address without a name around it; `root@localhost` will do.
fn address(text: &str) -> Result<String, String> {
    let malformed = || format!("{} is not a mail address; write it as in \"ops@example.net\"", seen(text));
    let (user, domain) = text.rsplit_once('@').ok_or_else(malformed)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+-~='*!$/#&%".contains(c);
    let well_formed = (1..=64).contains(&user.len())
        && user.chars().all(is_plain)
        && !user.starts_with('.')
        && !user.ends_with('.')
        && !user.contains("..");
    let domain = Hostname::parse_any(domain).map_err(|_| malformed())?;
    if well_formed { Ok(format!("{user}@{}", domain.as_str())) } else { Err(malformed()) }
}

fn user(text: &str) -> Result<String, String> {
    let well_formed = (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err("not a user name; write it as the mail server knows it".to_owned())
    }
}

/// `smtp://HOST:587`, `smtps://HOST:465`, `smtp+plain://localhost:25`, or a host alone.
fn server(text: &str) -> Result<(String, u16, MailSecurity), String> {
    const FORMS: &str = "write \"smtp://HOST:587\" (STARTTLS), \"smtps://HOST:465\" (TLS), \"smtp+plain://localhost:25\" (this machine only), or the host alone";
    let (scheme, place) = text.split_once("://").unwrap_or(("", text));
    if place.contains('@') {
        return Err(format!(
            "{} has a user name or a password in it; remove it, and write `user` and `password-file`",
            without_credentials(text)
        ));
    }
    let (security, usual) = match scheme {
        "" | "smtp" => (MailSecurity::StartTls, 587),
        "smtps" => (MailSecurity::Tls, 465),
        "smtp+plain" => (MailSecurity::None, 25),
        _ => return Err(format!("{} is no mail server; {FORMS}", seen(text))),
    };
    let malformed = || format!("{} is no mail server; {FORMS}", seen(text));
    let place = place.strip_suffix('/').filter(|_| !scheme.is_empty()).unwrap_or(place);
    let (host, port) = match place.parse::<IpAddr>() {
        Ok(_) => (place, None),
        Err(_) => match place.rsplit_once(':') {
            Some((host, port)) => {
                (host, Some(port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(malformed)?))
            }
            None => (place, None),
        },
    };
    if scheme.is_empty() && port.is_some() {
        return Err(format!("{} has a port, but does not say how it speaks there; {FORMS}", seen(text)));
    }
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let host = match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) => Hostname::parse_any(host).map_err(|_| malformed())?.as_str().to_owned(),
    };
    if security == MailSecurity::None && !is_loopback(&host) {
        return Err(format!(
            "{} would be mail without encryption over a network; write \"smtp://{host}\" (STARTTLS) or \"smtps://{host}\" (TLS)",
            seen(text)
        ));
    }
    if security == MailSecurity::StartTls && port == Some(465) {
        return Err(format!("port 465 speaks TLS from the first byte; write \"smtps://{host}\""));
    }
    Ok((host, port.unwrap_or(usual), security))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions() {
        for (text, value) in
            [("1/4", 0.25), ("0.25", 0.25), ("25%", 0.25), (" 1 / 3 ", 1.0 / 3.0), (".5", 0.5)]
        {
            assert!((fraction(text).unwrap() - value).abs() < 1e-12, "{text}");
        }
        for text in ["", "0", "1", "1/0", "0/0", "100%", "-1/4", "1/4/4", "a", "nan", "inf", "1e-3", "/", "%"]
        {
            assert!(fraction(text).is_err(), "{text}");
        }
    }

    #[test]
    fn webhooks_are_https_or_on_this_machine() {
        for good in [
            "https://hooks.example.net/a/b?c=d",
            "http://localhost:8080/",
            "http://127.0.0.1/x",
            "http://[::1]:1/",
        ] {
            assert!(webhook(good).is_ok(), "{good}");
        }
        for bad in [
            "http://hooks.example.net/s3cret",
            "https://me:s3cret@hooks.example.net/s3cret",
            "https:///s3cret",
            "ftp://x/s3cret",
            "hooks.example.net/s3cret",
            "https://a b/s3cret",
            "s3cret",
            "https://x:/s3cret",
            "",
        ] {
            let message = webhook(bad).unwrap_err();
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn mail_servers() {
        use MailSecurity::{None, StartTls, Tls};
        for (text, host, port, security) in [
            ("mail.example.net", "mail.example.net", 587, StartTls),
            ("smtp://mail.example.net", "mail.example.net", 587, StartTls),
            ("smtp://mail.example.net:2525/", "mail.example.net", 2525, StartTls),
            ("smtps://Mail.example.net", "mail.example.net", 465, Tls),
            ("smtp+plain://localhost", "localhost", 25, None),
            ("smtp+plain://[::1]:2525", "::1", 2525, None),
            ("smtp+plain://::1", "::1", 25, None),
            ("192.0.2.7", "192.0.2.7", 587, StartTls),
        ] {
            assert_eq!(server(text), Ok((host.to_owned(), port, security)), "{text}");
        }
        for bad in [
            "",
            "smtp://",
            "mail.example.net:587",
            "smtp+plain://mail.example.net",
            "http://mail.example.net",
            "smtp://mail.example.net:465",
            "smtp://mail.example.net:0",
            "smtp://a/b",
            "a b",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
        let message = server("smtps://me:hush@mail.example.net").unwrap_err();
        assert!(!message.contains("hush") && message.contains("`password-file`"), "{message}");
    }

    #[test]
    fn addresses() {
        for (text, same) in [
            ("ops@example.net", "ops@example.net"),
            ("root@localhost", "root@localhost"),
            ("a+b@EXAMPLE.net", "a+b@example.net"),
        ] {
            assert_eq!(address(text).as_deref(), Ok(same));
        }
        for bad in
            ["", "ops", "@a.b", "a@", "Ops <ops@a.b>", "a b@c.d", "a..b@c.d", ".a@b.c", "a@b.c\n", "a,b@c.d"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
