//! A notice by mail: SMTP (RFC 5321) with STARTTLS (RFC 3207) or TLS (RFC 8314), and a login (RFC 4954)
//! where there is one.

mod bounded;

use std::time::Duration;

use lettre::Message;
use lettre::address::{Address, Envelope};
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::commands::{Data, Mail as MailCommand, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use tokio::net::TcpStream;

use super::files;
use crate::acme::root_cause;
use crate::config::{Mail, MailSecurity};
use crate::hostname::Hostname;
use crate::store::outbox::Notice;
use crate::words::printable;
use bounded::Bounded;

/// From the connection's start to the server's last word.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// What is shown of a server's answer, characters.
const SHOWN: usize = 300;

/// Why a mail server did not take a notice.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The password or the roots cannot be read.
    #[error("{0}")]
    File(String),
    /// The message could not be made.
    #[error("the mail cannot be written: {0}; correct the addresses in `notify.mail`")]
    Message(String),
    /// No connection.
    #[error("cannot reach the mail server {place}: {reason}; is it up, and may this machine reach it")]
    Connect {
        /// Host and port.
        place: String,
        /// What was seen.
        reason: String,
    },
    /// The server's certificate is not trusted, or TLS fails otherwise.
    #[error("no trusted connection with the mail server {place}: {reason}{}", tls_remedy(reason))]
    Tls {
        /// Host and port.
        place: String,
        /// What was seen.
        reason: String,
    },
    /// STARTTLS is not offered.
    #[error(
        "the mail server {place} offers no STARTTLS, so nothing was sent: write `smtps://` if it speaks TLS from the beginning, or have it offer STARTTLS"
    )]
    NoStartTls {
        /// Host and port.
        place: String,
    },
    /// No login.
    #[error(
        "the mail server {place} did not accept the login: {reason}; compare `user` and `password-file` with what it knows"
    )]
    Login {
        /// Host and port.
        place: String,
        /// What it said.
        reason: String,
    },
    /// It refused.
    #[error("the mail server {place} refused {what}: {reason}{}", refusal_remedy(reason))]
    Refused {
        /// Host and port.
        place: String,
        /// The step.
        what: String,
        /// What it said.
        reason: String,
    },
    /// Not within the limit.
    #[error("the mail server {place} did not take it within {} s: is it up, and does it speak as `notify.mail.smtp` says", TOTAL_TIMEOUT.as_secs())]
    Timeout {
        /// Host and port.
        place: String,
    },
}

fn tls_remedy(reason: &str) -> &'static str {
    if reason.contains("UnknownIssuer") {
        "; its certificate is not from a public CA: put the root it comes from into `notify.mail.roots`"
    } else if reason.contains("NotValidForName") || reason.contains("not valid for name") {
        "; write the name that its certificate is for into `notify.mail.smtp`"
    } else {
        "; does it speak TLS there (`smtps://` from the beginning, `smtp://` with STARTTLS)"
    }
}

fn refusal_remedy(reason: &str) -> &'static str {
    if reason.starts_with("530") || reason.to_ascii_lowercase().contains("relay") {
        "; it may want a login: `user` and `password-file`"
    } else {
        ""
    }
}

/// Sends a notice; recipients that the server did not take, while it took others, are told.
///
/// # Errors
/// [`MailError`], when no recipient gets it.
pub(super) async fn send(mail: &Mail, id: u64, notice: &Notice) -> Result<Vec<String>, MailError> {
    let timeout = || MailError::Timeout { place: place(mail) };
    tokio::time::timeout(TOTAL_TIMEOUT, submit(mail, id, notice)).await.map_err(|_| timeout())?
}

async fn submit(mail: &Mail, id: u64, notice: &Notice) -> Result<Vec<String>, MailError> {
    let message = message(mail, id, notice).map_err(MailError::Message)?;
    let credentials = credentials(mail)?;
    let hello = hello(&notice.host);
    let mut connection = connect(mail, &hello).await?;
    if let Some(credentials) = credentials {
        connection
            .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
            .await
            .map_err(|e| MailError::Login { place: place(mail), reason: reason(&e) })?;
    }
    let refused = |what: &str, e: &SmtpError| MailError::Refused {
        place: place(mail),
        what: what.to_owned(),
        reason: reason(e),
    };
    let envelope = message.envelope();
    let missed = address_to(&mut connection, envelope, &refused).await?;
    connection.command(Data).await.map_err(|e| refused("the mail", &e))?;
    connection.message(&message.formatted()).await.map_err(|e| refused("the mail", &e))?;
    // It has the mail; how it says goodbye changes nothing.
    let _ = connection.quit().await;
    Ok(missed)
}

/// Names sender and recipients to the server; some of several recipients may be refused.
async fn address_to(
    connection: &mut AsyncSmtpConnection,
    envelope: &Envelope,
    refused: &impl Fn(&str, &SmtpError) -> MailError,
) -> Result<Vec<String>, MailError> {
    let sender = MailCommand::new(envelope.from().cloned(), Vec::new());
    connection.command(sender).await.map_err(|e| refused("the sender", &e))?;
    let mut missed = Vec::new();
    let mut last = None;
    for to in envelope.to() {
        if let Err(e) = connection.command(Rcpt::new(to.clone(), Vec::new())).await {
            let refusal = refused(&format!("the recipient {to}"), &e);
            missed.push(refusal.to_string());
            last = Some(refusal);
        }
    }
    match last {
        Some(refusal) if missed.len() == envelope.to().len() => Err(refusal),
        _ => Ok(missed),
    }
}

async fn connect(mail: &Mail, hello: &ClientId) -> Result<AsyncSmtpConnection, MailError> {
    let tls_failed = |e: &SmtpError| MailError::Tls { place: place(mail), reason: reason(e) };
    let not_reached = |reason: String| MailError::Connect { place: place(mail), reason };
    let server = (mail.host.as_str(), mail.port);
    if mail.security == MailSecurity::Tls {
        let tls = trust(mail)?;
        return AsyncSmtpConnection::connect_tokio1(server, Some(TOTAL_TIMEOUT), hello, Some(tls), None)
            .await
            .map_err(|e| if is_io(&e) { not_reached(reason(&e)) } else { tls_failed(&e) });
    }
    let stream = TcpStream::connect(server).await.map_err(|e| not_reached(e.to_string()))?;
    let mut connection = AsyncSmtpConnection::connect_with_transport(Box::new(Bounded::new(stream)), hello)
        .await
        .map_err(|e| not_reached(reason(&e)))?;
    if mail.security == MailSecurity::StartTls {
        if !connection.can_starttls() {
            return Err(MailError::NoStartTls { place: place(mail) });
        }
        connection.starttls(trust(mail)?, hello).await.map_err(|e| tls_failed(&e))?;
    }
    Ok(connection)
}

/// Whether the way to the server failed, before TLS had a say.
fn is_io(error: &SmtpError) -> bool {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    // What rustls has to say comes wrapped in an io::Error of the kind InvalidData.
    cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() != std::io::ErrorKind::InvalidData)
}

fn trust(mail: &Mail) -> Result<TlsParameters, MailError> {
    let mut builder: TlsParametersBuilder =
        TlsParameters::builder(mail.host.clone()).certificate_store(CertificateStore::WebpkiRoots);
    if let Some(path) = &mail.roots {
        for root in files::roots(path).map_err(MailError::File)? {
            let root = Certificate::from_der(root.to_vec()).map_err(|e| MailError::File(e.to_string()))?;
            builder = builder.add_root_certificate(root);
        }
    }
    builder
        .build()
        .map_err(|e| MailError::File(format!("the roots in `notify.mail.roots` cannot be used: {e}")))
}

fn credentials(mail: &Mail) -> Result<Option<Credentials>, MailError> {
    let (Some(user), Some(file)) = (&mail.user, &mail.password_file) else { return Ok(None) };
    let password = files::password(file).map_err(MailError::File)?;
    Ok(Some(Credentials::new(user.clone(), password.to_string())))
}

fn message(mail: &Mail, id: u64, notice: &Notice) -> Result<Message, String> {
    let mailbox =
        |text: &String| text.parse::<Address>().map(|a| Mailbox::new(None, a)).map_err(|e| e.to_string());
    let domain = mail.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let mut builder = Message::builder()
        .from(mailbox(&mail.from)?)
        .subject(format!("{}: {}", notice.host, notice.summary))
        .date(notice.at.into())
        .message_id(Some(format!("<{id:016x}.{}@{domain}>", notice.kind)))
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN);
    for to in &mail.to {
        builder = builder.to(mailbox(to)?);
    }
    builder.body(body(notice)).map_err(|e| e.to_string())
}

fn body(notice: &Notice) -> String {
    let mut body = notice.text.clone();
    if !notice.identifiers.is_empty() {
        let names: Vec<_> = notice.identifiers.iter().map(ToString::to_string).collect();
        body.push_str(&format!("\nNames: {}\n", names.join(", ")));
    }
    body.push_str(&format!("\n-- \nwicketgate on {}, {}, {}\n", notice.host, notice.kind, notice.at));
    body
}

/// No vacation message shall answer it (RFC 3834).
#[derive(Debug, Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// How this machine names itself to the server.
fn hello(host: &str) -> ClientId {
    match Hostname::parse_any(host) {
        Ok(name) => ClientId::Domain(name.as_str().to_owned()),
        Err(_) => ClientId::Domain("[127.0.0.1]".to_owned()),
    }
}

/// What the server said with its code, or what went wrong.
fn reason(error: &SmtpError) -> String {
    let cause = printable(&root_cause(error), SHOWN);
    match error.status() {
        Some(code) => format!("{code} {cause}"),
        None => cause,
    }
}

fn place(mail: &Mail) -> String {
    if mail.host.contains(':') {
        format!("[{}]:{}", mail.host, mail.port)
    } else {
        format!("{}:{}", mail.host, mail.port)
    }
}

/// The server as the configuration writes it.
pub(super) fn describe(mail: &Mail) -> String {
    let scheme = match mail.security {
        MailSecurity::StartTls => "smtp",
        MailSecurity::Tls => "smtps",
        MailSecurity::None => "smtp+plain",
    };
    format!("{scheme}://{}", place(mail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::notice::{Account, compose};
    use crate::store::outbox::Kind;

    fn mail(host: &str, port: u16, security: MailSecurity) -> Mail {
        Mail {
            to: vec!["a@example.net".to_owned(), "b@example.net".to_owned()],
            from: "gate@example.org".to_owned(),
            host: host.to_owned(),
            port,
            security,
            user: None,
            password_file: None,
            roots: None,
        }
    }

    /// What is said of a server that does this with its first client.
    async fn refused_by(security: MailSecurity, serve: impl AsyncFnOnce(TcpStream)) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mail = mail("127.0.0.1", listener.local_addr().unwrap().port(), security);
        let notice = compose(Kind::Test, Account::default(), jiff::Timestamp::UNIX_EPOCH, "gate");
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream).await;
        };
        let (sent, ()) = tokio::join!(send(&mail, 1, &notice), server);
        sent.unwrap_err().to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_left() {
        for security in [MailSecurity::StartTls, MailSecurity::Tls, MailSecurity::None] {
            let told = refused_by(security, async |mut stream: TcpStream| {
                // Until the client goes.
                while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 512]).await {}
            });
            assert!(told.await.contains("did not take it within 60 s"));
        }
    }

    #[tokio::test]
    async fn a_server_that_never_ends_its_line_is_left() {
        for security in [MailSecurity::StartTls, MailSecurity::None] {
            let told = refused_by(security, async |mut stream: TcpStream| {
                while tokio::io::AsyncWriteExt::write_all(&mut stream, &[b'2'; 4096]).await.is_ok() {}
            });
            let told = told.await;
            assert!(told.contains("it sent more than 262144 bytes"), "{told}");
        }
    }

    #[test]
    fn the_message_as_it_is_sent() {
        let mail = mail("::1", 25, MailSecurity::None);
        let identifiers = ["bücher.example".parse().unwrap()];
        let account = Account {
            certificate: Some("a"),
            identifiers: &identifiers,
            summary: "ü: no\r\nBcc: evil@example.com",
            seen: "something\n.\nelse",
            ..Account::default()
        };
        let notice = compose(Kind::AttemptFailed, account, "2026-11-25T10:00:00Z".parse().unwrap(), "gate");
        let message = message(&mail, 42, &notice).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        assert!(text.is_ascii() && !text.contains("\r\nBcc:"), "{text}");
        for line in [
            "From: gate@example.org\r\n",
            "To: a@example.net, b@example.net\r\n",
            "Date: Wed, 25 Nov 2026 10:00:00 +0000\r\n",
            "Message-ID: <000000000000002a.attempt-failed@example.org>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "What was seen: something; .; else\r\n",
            "xn--bcher-kva.example\r\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert_eq!(message.envelope().to().len(), 2);
        assert_eq!(describe(&mail), "smtp+plain://[::1]:25");
    }
}
