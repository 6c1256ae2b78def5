//! What can be the matter, by name.

use serde::{Deserialize, Serialize};

/// What was found about an identifier or one of its addresses. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The gate answered with the canary, exactly.
    Answered,
    /// 403: a filter or an access rule.
    Forbidden,
    /// 404 or 410: another program looks for a file.
    NotFound,
    /// 401 or 407: a log-in is asked for.
    LoginWall,
    /// 421: the server does not know the host.
    Misdirected,
    /// 429: too many requests.
    TooManyRequests,
    /// 502, 503 or 504: a proxy does not reach the gate.
    BadGateway,
    /// Another 5xx: a server or an application failed.
    ServerError,
    /// Any other status than 200.
    OtherStatus,
    /// 200, with another wicketgate's or a stale one's words, or its refusal.
    OtherGate,
    /// 200 with a page of HTML.
    HtmlPage,
    /// 200 with the key authorization of another ACME client's account.
    OtherClient,
    /// 200, and white space after the right answer.
    TrailingWhitespace,
    /// 200 with any other body.
    WrongBody,
    /// More than a validator reads.
    TooLarge,
    /// Not HTTP.
    NotHttp,
    /// TLS on port 80.
    TlsOnPort80,
    /// Redirects that lead to something else.
    RedirectElsewhere,
    /// Redirects in a circle.
    RedirectLoop,
    /// More redirects than a validator follows.
    TooManyRedirects,
    /// A redirect to a port other than 80 and 443.
    RedirectPort,
    /// A redirect to another scheme than http and https.
    RedirectScheme,
    /// A redirect to nowhere that could be understood.
    RedirectMalformed,
    /// A redirect to a bare address, which not every CA follows.
    RedirectToAddress,
    /// A redirect to a name without an address.
    RedirectUnresolved,
    /// A redirect to a place that cannot be reached.
    RedirectUnreachable,
    /// A redirect to https, where TLS fails.
    RedirectTls,
    /// A redirect, where the CA follows none.
    RedirectNotFollowed,
    /// Connection refused.
    Refused,
    /// No answer to the attempt to connect.
    TimedOut,
    /// Connected, and then no answer, or none to its end.
    Silent,
    /// The connection was reset.
    Reset,
    /// The connection was closed without an answer, or in the midst of one.
    Closed,
    /// No way there from this machine.
    NoRoute,
    /// Something that the system said.
    Unknown,
    /// IPv6 fails where IPv4 works.
    Ipv6Broken,
    /// Some of several addresses fail.
    SomeAddressesWrong,
    /// More addresses than were looked at.
    TooManyAddresses,
    /// An address that no CA out there can reach.
    PrivateAddress,
    /// The name exists and has no address.
    NoAddress,
    /// The name does not exist.
    NoName,
    /// The name servers fail.
    DnsServfail,
    /// Signatures in the DNS do not validate.
    DnssecBogus,
    /// The resolver gave no usable answer.
    DnsUnanswered,
    /// CAA records forbid this CA, the zone's own servers say.
    CaaForbidden,
    /// CAA records that cannot be judged, or that the zone's own servers do not confirm.
    CaaUncertain,
}

impl Cause {
    /// The name in JSON.
    pub fn name(self) -> String {
        let json = serde_json::to_value(self).expect("a plain name always has a JSON form");
        json.as_str().unwrap_or_default().to_owned()
    }
}
