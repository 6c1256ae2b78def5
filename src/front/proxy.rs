//! From a request to its response: route it, clean its header, send it on, and say so where that fails.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::{Client, Underway};
use super::headers::{self, X_FORWARDED_FOR};
use super::routes::requested_host;
use super::upstream::body::{Download, Interrupted, Upload};
use super::upstream::{self, Answer, Failure, Shown};
use super::{demo, resolver::Served};
use crate::config::Upstream;
use crate::hostname::Identifier;
use crate::net::client::client_address;

/// The client left, and nobody is there to be answered.
#[derive(Debug, thiserror::Error)]
#[error("the client left in the middle of its request")]
pub(super) struct Abandoned;

/// Answers one request.
pub(super) async fn answer(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Abandoned> {
    let mut response = respond(&client, request).await?;
    if let Some(hsts) = &client.thread.state.routes().hsts {
        // The application may know better.
        response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
    Ok(response)
}

async fn respond(
    client: &Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Abandoned> {
    let underway = client.begin();
    let (mut parts, incoming) = request.into_parts();
    client.unread.set(!incoming.is_end_stream());
    let version = parts.version;
    if parts.method == Method::CONNECT {
        return Ok(page(StatusCode::NOT_IMPLEMENTED, "this is no forward proxy", underway));
    }
    let (provenance, upstream, limits, max_body) = match requested_host(version, &parts.uri, &parts.headers) {
        Err(error) => {
            tracing::debug!(client = %client.address, %error, "a request was refused");
            return Ok(page(StatusCode::BAD_REQUEST, &error.to_string(), underway));
        }
        Ok(host) => {
            let fallback =
                if host.is_none() { own_host(&client.served) } else { HeaderValue::from_static("") };
            let bytes = host.as_ref().map_or(fallback.as_bytes(), |host| host.as_bytes());
            let routes = client.thread.state.routes();
            let upstream = routes.find(bytes).clone();
            if !client.covers(bytes) || matches!(*upstream, Upstream::Raw(_)) {
                tracing::debug!(client = %client.address, "a request for a host of another certificate");
                let text = "this connection's certificate is not for that host";
                return Ok(page(StatusCode::MISDIRECTED_REQUEST, text, underway));
            }
            let address = match routes.trusted_proxies.as_slice() {
                [] => client.address,
                trusted => {
                    let forwarded = parts.headers.get_all(&X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
                    client_address(client.address, forwarded, trusted)
                }
            };
            let value = || host.and_then(|host| host.to_value()).unwrap_or_else(|| fallback.clone());
            (client.provenance(address, bytes, value), upstream, routes.limits, routes.max_body)
        }
    };
    if *upstream == Upstream::Demo {
        let text = demo::wants_text(parts.uri.path(), &parts.headers);
        let now = crate::clock::now();
        return Ok(demo::page(&client.served, &client.session, version, text, now)
            .map(|text| ResponseBody::full(text, underway)));
    }
    if max_body.is_some_and(|max| incoming.size_hint().lower() > max) {
        return Ok(page(StatusCode::PAYLOAD_TOO_LARGE, "the request is larger than is taken here", underway));
    }
    let upload = Upload::new(incoming, max_body);
    let has_body = !upload.is_empty();
    // HTTP/2 has no such thing (RFC 9113 section 8.6).
    let may_switch = matches!(*upstream, Upstream::Http(_));
    let upgrade = headers::wanted_upgrade(version, &parts.headers, has_body).filter(|_| may_switch);
    let wants_upgrade = upgrade.is_some();
    headers::forward_request(&mut parts.headers, version, has_body, upgrade, &provenance);
    parts.uri = origin_form(parts.uri);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let progress = upload.progress();
    let request = Request::from_parts(parts, upload);
    let sent = upstream::send(&client.thread.pools, &upstream, limits, request, wants_upgrade).await;
    client.unread.set(progress.is_some_and(|progress| !progress.has_ended()));
    match sent {
        Ok(Answer::Response(mut response)) => {
            let status = response.status();
            headers::forward_response(response.headers_mut(), status, version);
            *response.version_mut() = Version::HTTP_11;
            Ok(response.map(|download| ResponseBody::download(download, underway)))
        }
        Ok(Answer::Switched(mut response, switched)) => {
            let status = response.status();
            headers::forward_response(response.headers_mut(), status, version);
            client.switch(switched, underway);
            Ok(response.map(|()| ResponseBody(Content::Full(None))))
        }
        Err(failure) => failed(client, &upstream, &failure, underway),
    }
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
    Ok(page(status, text, underway))
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

/// RFC 9112 section 3.2.1.
fn origin_form(uri: Uri) -> Uri {
    if uri.scheme().is_none() && uri.authority().is_none() {
        return uri;
    }
    Uri::from(uri.into_parts().path_and_query.unwrap_or(PathAndQuery::from_static("/")))
}

/// A page that says in plain words why there is no other one.
fn page(status: StatusCode, text: &str, underway: Underway) -> Response<ResponseBody> {
    let mut response =
        Response::new(ResponseBody::full(Bytes::from(format!("{status}: {text}\n")), underway));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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

    fn download(download: Download, underway: Underway) -> Self {
        Self(Content::Download(download, underway))
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
            Content::Full(full) => Poll::Ready(full.take().map(|(bytes, _)| Ok(Frame::data(bytes)))),
            Content::Download(download, underway) => {
                underway.asked();
                let polled = Pin::new(download).poll_frame(context);
                match &polled {
                    Poll::Ready(Some(Ok(_))) => underway.gave(),
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
