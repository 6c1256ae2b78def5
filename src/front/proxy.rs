//! From a request to its response: route it, clean its header, send it on, and say so where that fails.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::access::Record;
use super::connection::{Client, Underway};
use super::headers::{self, X_FORWARDED_FOR};
use super::routes::{Limits, requested_host};
use super::upstream::body::{Download, Interrupted, Upload};
use super::upstream::{self, Answer, Failure, Prepared, Shown};
use super::{demo, resolver::Served};
use crate::config::Upstream;
use crate::hostname::Identifier;
use crate::net::client::client_address;

/// The client left, and nobody is there to be answered.
#[derive(Debug, thiserror::Error)]
#[error("the client left in the middle of its request")]
pub(super) struct Abandoned;

/// A response, or what it has to be waited for.
pub(super) enum Answering {
    Known(Option<Box<Response<ResponseBody>>>),
    Coming(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Abandoned>>>>),
}

impl Future for Answering {
    type Output = Result<Response<ResponseBody>, Abandoned>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Known(response) => Poll::Ready(Ok(*response.take().expect("polled once"))),
            Self::Coming(coming) => coming.as_mut().poll(context),
        }
    }
}

/// Answers one request.
pub(super) fn answer(client: &Rc<Client>, request: Request<Incoming>) -> Answering {
    match route(client, request) {
        Ok(onward) => Answering::Coming(Box::pin(pass_on(client.clone(), onward))),
        Err(mut response) => {
            finish(client, &mut response);
            Answering::Known(Some(response))
        }
    }
}

fn finish(client: &Client, response: &mut Response<ResponseBody>) {
    let status = response.status();
    response.body_mut().record(|record| record.answers(status));
    if let Some(hsts) = &client.thread.state.routes().hsts {
        // The application may know better.
        response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
}

/// A request on its way to an application.
struct Onward {
    prepared: Prepared,
    upstream: Arc<Upstream>,
    limits: Limits,
    /// The client's.
    version: Version,
    underway: Underway,
}

/// Which application a request is for, and what it gets to see of it; or the answer, where it is for none.
fn route(client: &Rc<Client>, request: Request<Incoming>) -> Result<Onward, Box<Response<ResponseBody>>> {
    let (mut parts, incoming) = request.into_parts();
    let underway = client.begin(&parts);
    client.unread.set(!incoming.is_end_stream());
    let version = parts.version;
    if parts.method == Method::CONNECT {
        return Err(page(StatusCode::NOT_IMPLEMENTED, "this is no forward proxy", underway));
    }
    let routes = client.thread.state.routes();
    let host = requested_host(version, &parts.uri, &parts.headers);
    let host = match host {
        Ok(host) => host,
        Err(error) => {
            tracing::debug!(client = %client.address, %error, "a request was refused");
            return Err(page(StatusCode::BAD_REQUEST, &error.to_string(), underway));
        }
    };
    let fallback = if host.is_none() { own_host(&client.served) } else { HeaderValue::from_static("") };
    let bytes = host.as_ref().map_or(fallback.as_bytes(), |host| host.as_bytes());
    let upstream = routes.find(bytes).clone();
    if !client.covers(bytes) || matches!(*upstream, Upstream::Raw(_)) {
        tracing::debug!(client = %client.address, "a request for a host of another certificate");
        let text = "this connection's certificate is not for that host";
        return Err(page(StatusCode::MISDIRECTED_REQUEST, text, underway));
    }
    let address = match routes.trusted_proxies.as_slice() {
        [] => client.address,
        trusted => {
            let forwarded = parts.headers.get_all(&X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
            client_address(client.address, forwarded, trusted)
        }
    };
    let value = || host.and_then(|host| host.to_value()).unwrap_or_else(|| fallback.clone());
    let provenance = client.provenance(address, bytes, value);
    if *upstream == Upstream::Demo {
        let text = demo::wants_text(parts.uri.path(), &parts.headers);
        let now = crate::clock::now();
        let page = demo::page(&client.served, &client.session, version, text, now);
        return Err(Box::new(page.map(|text| ResponseBody::full(text, underway))));
    }
    let max_body = routes.max_body;
    if max_body.is_some_and(|max| incoming.size_hint().lower() > max) {
        let text = "the request is larger than is taken here";
        return Err(page(StatusCode::PAYLOAD_TOO_LARGE, text, underway));
    }
    let upload = Upload::new(incoming, max_body);
    let has_body = !upload.is_empty();
    // HTTP/2 has no such thing (RFC 9113 section 8.6).
    let may_switch = matches!(*upstream, Upstream::Http(_));
    let upgrade = headers::wanted_upgrade(version, &parts.headers, has_body).filter(|_| may_switch);
    let wants_upgrade = upgrade.is_some();
    headers::forward_request(&mut parts.headers, version, has_body, upgrade);
    let prepared =
        upstream::prepare(&client.thread.pools, &upstream, parts, upload, &provenance, wants_upgrade);
    Ok(Onward { prepared, upstream, limits: routes.limits, version, underway })
}

async fn pass_on(client: Rc<Client>, mut onward: Onward) -> Result<Response<ResponseBody>, Abandoned> {
    let pools = &client.thread.pools;
    onward.underway.record(Record::sends);
    let sent = upstream::send(pools, &onward.upstream, onward.limits, &mut onward.prepared).await;
    client.unread.set(onward.prepared.is_unread());
    let Onward { upstream, version, mut underway, .. } = onward;
    underway.record(Record::hears);
    let mut response = match sent {
        Ok(Answer::Response(mut response)) => {
            let status = response.status();
            headers::forward_response(response.headers_mut(), status, version);
            *response.version_mut() = Version::HTTP_11;
            response.map(|download| ResponseBody::download(download, underway))
        }
        Ok(Answer::Switched(mut response, switched)) => {
            let status = response.status();
            headers::forward_response(response.headers_mut(), status, version);
            underway.record(|record| record.answers(status));
            client.switch(switched, underway);
            response.map(|()| ResponseBody(Content::Full(None)))
        }
        Err(failure) => failed(&client, &upstream, &failure, underway)?,
    };
    finish(&client, &mut response);
    Ok(response)
}

fn failed(
    client: &Client,
    upstream: &Arc<Upstream>,
    failure: &Failure,
    underway: Underway,
) -> Result<Response<ResponseBody>, Abandoned> {
    let client_address = client.address;
    if failure.is_upstreams() && client.thread.pools.may_warn(upstream) {
        tracing::warn!(upstream = %Shown(upstream), client = %client_address, "the upstream {failure}");
    } else {
        tracing::debug!(upstream = %Shown(upstream), client = %client_address, %failure, "no answer");
    }
    let status = failure.status().ok_or(Abandoned)?;
    let text = match status {
        StatusCode::GATEWAY_TIMEOUT => "the application behind this server did not answer in time",
        StatusCode::REQUEST_TIMEOUT => "the request did not arrive in time",
        StatusCode::PAYLOAD_TOO_LARGE => "the request is larger than is taken here",
        StatusCode::SERVICE_UNAVAILABLE => "the application behind this server is busy",
        _ => "the application behind this server gave no usable answer",
    };
    Ok(*page(status, text, underway))
}

/// What an HTTP/1.0 client that names no host gets: the first name of its certificate.
fn own_host(served: &Served) -> HeaderValue {
    let host = match served.identifiers.first() {
        Some(Identifier::Dns(name)) => name.to_string(),
        Some(Identifier::Ip(std::net::IpAddr::V6(ip))) => format!("[{ip}]"),
        Some(Identifier::Ip(ip)) => ip.to_string(),
        None => String::new(),
    };
    HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static(""))
}

/// A page that says in plain words why there is no other one.
fn page(status: StatusCode, text: &str, underway: Underway) -> Box<Response<ResponseBody>> {
    let mut response =
        Response::new(ResponseBody::full(Bytes::from(format!("{status}: {text}\n")), underway));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Box::new(response)
}

/// What goes back to the client.
pub(super) struct ResponseBody(Content);

enum Content {
    Full(Option<(Bytes, Underway)>),
    Download(Download, Underway),
    Done,
}

impl ResponseBody {
    fn full(bytes: Bytes, underway: Underway) -> Self {
        Self(Content::Full(Some((bytes, underway))))
    }

    fn download(download: Download, mut underway: Underway) -> Self {
        if download.is_end_stream() {
            underway.record(Record::ends);
        }
        Self(Content::Download(download, underway))
    }

    fn record(&mut self, note: impl FnOnce(&mut Record)) {
        if let Content::Full(Some((_, underway))) | Content::Download(_, underway) = &mut self.0 {
            underway.record(note);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let this = self.get_mut();
        match &mut this.0 {
            Content::Full(full) => Poll::Ready(full.take().map(|(bytes, mut underway)| {
                underway.record(|record| record.gives(bytes.len(), true));
                Ok(Frame::data(bytes))
            })),
            Content::Download(download, underway) => {
                underway.asked();
                let polled = Pin::new(&mut *download).poll_frame(context);
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        underway.gave();
                        let bytes = frame.data_ref().map_or(0, Bytes::len);
                        underway.record(|record| record.gives(bytes, download.is_end_stream()));
                    }
                    Poll::Ready(None) => underway.record(Record::ends),
                    Poll::Ready(Some(Err(error))) => tracing::debug!(%error, "a response was cut short"),
                    _ => {}
                }
                if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    this.0 = Content::Done;
                }
                polled
            }
            Content::Done => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Full(full) => full.is_none(),
            Content::Download(download, _) => download.is_end_stream(),
            Content::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Full(full) => {
                SizeHint::with_exact(full.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64))
            }
            Content::Download(download, _) => download.size_hint(),
            Content::Done => SizeHint::with_exact(0),
        }
    }
}
