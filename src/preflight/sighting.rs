//! What came of asking one address for the canary, as plain values: the probe makes them, the diagnosis
//! reads them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::StatusCode;

/// One address, asked as the CA asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The first address that was asked.
    pub address: SocketAddr,
    /// Where this machine stands towards it.
    pub stand: Stand,
    /// The URLs that were asked for, the challenge's own first.
    pub places: Vec<Place>,
    /// What came in the end.
    pub end: End,
}

/// Where this machine stands towards an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// It is one of this machine's own: what is sent there goes over loopback, past the packet filter.
    pub own: bool,
    /// The address that this machine sends from; `None` where it has no route.
    pub from: Option<IpAddr>,
}

/// A URL that a validator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// TLS or not.
    pub scheme: Scheme,
    /// A name in lower case, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// The schemes that a validator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The port that goes without saying.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Place {
    /// The host and, where it does not go without saying, the port: as in `Host` and in a URL.
    pub fn authority(&self) -> String {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        if self.port == self.scheme.port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// What came in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// An answer that is no redirect.
    Answer(Answer),
    /// A redirect that a validator does not follow.
    Lost(RedirectFault),
    /// No answer.
    Failed(Failure),
}

/// An answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The fields of its header that tell who made it, names in lower case.
    pub headers: Vec<(String, String)>,
    /// How its body begins.
    pub body: Vec<u8>,
    /// The body goes on after that.
    pub more: bool,
}

impl Answer {
    /// The first field of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectFault {
    /// To a URL that was asked for before.
    Loop(Place),
    /// More than a validator follows.
    TooMany,
    /// To a port other than 80 and 443.
    Port(Place),
    /// To another scheme than http and https; the scheme.
    Scheme(String),
    /// `Location` is missing or no URL; what stands there.
    Malformed(String),
    /// This CA follows none; where to.
    NotFollowed(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Connection refused.
    Refused,
    /// No answer to the attempt to connect.
    ConnectTimeout,
    /// No way there, or somebody on the way says so; the system's words.
    NoRoute(String),
    /// The connection was cut with a reset.
    Reset,
    /// The connection was closed without a byte.
    Closed,
    /// Connected, and then nothing.
    Silent,
    /// An answer that began and did not end in time.
    Stalled,
    /// An answer that broke off.
    BrokeOff,
    /// Not HTTP; the first bytes.
    NotHttp(Vec<u8>),
    /// TLS where plain HTTP belongs.
    SpeaksTls,
    /// A header that is longer than any validator reads.
    HeaderTooLarge,
    /// A redirect led to TLS that fails; the reason.
    Tls(String),
    /// A redirect led to a name without an address.
    Unresolved {
        /// The name.
        host: String,
        /// The zone's own servers say so.
        confirmed: bool,
    },
    /// Anything else; the system's words.
    Other(String),
}
