//! Checks every request to the admin port: it must have no body, and its host must be an address or one
//! of our names. Otherwise a foreign web page could read the port through a name that it resolves to
//! our address (DNS rebinding).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::policy::matches;

/// Patterns of the host names that the port answers to, in addition to addresses.
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    pub fn new(names: &[String]) -> Self {
        let own = rustix::system::uname();
        let own = own.nodename().to_str().unwrap_or_default().to_owned();
        let all = names.iter().cloned().chain([own, "localhost".into()]);
        Hosts(
            all.map(|n| normalized(&n))
                .filter(|n| !n.is_empty())
                .collect(),
        )
    }

    /// Whether `host`, with or without a port, is an address or one of the names.
    fn allow(&self, host: &str) -> bool {
        let name = without_port(host);
        if let Some(address) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let name = normalized(name);
        name.parse::<Ipv4Addr>().is_ok() || self.0.iter().any(|allowed| matches(allowed, &name))
    }
}

/// A host name in lower case, without the trailing dot.
fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn refuse(code: StatusCode, why: &'static str) -> Response {
    (code, [(header::CONNECTION, "close")], why).into_response()
}

fn has_allowed_host(hosts: &Hosts, request: &Request) -> bool {
    let mut named = request.headers().get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().is_ok_and(|h| hosts.allow(h)),
        // HTTP/1.0 allows requests without a host; browsers always send one.
        (None, _) => request.version() == Version::HTTP_10,
        (Some(_), Some(_)) => false,
    };
    host && request
        .uri()
        .authority()
        .is_none_or(|a| hosts.allow(a.as_str()))
}

fn has_body(request: &Request) -> bool {
    let length = request.headers().get(header::CONTENT_LENGTH);
    length.is_some_and(|n| n != "0") || request.headers().contains_key(header::TRANSFER_ENCODING)
}

pub(super) async fn check(hosts: Arc<Hosts>, request: Request, next: Next) -> Response {
    if !has_allowed_host(&hosts, &request) {
        let why = "this host name is not allowed: use the worker's address, or add the name to ADMIN_HOSTS\n";
        return refuse(StatusCode::MISDIRECTED_REQUEST, why);
    }
    if has_body(&request) {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "requests must not have a body\n",
        );
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_own_names_are_allowed() {
        let hosts = Hosts::new(&["worker".into(), "*.Monitoring.svc".into()]);
        let own = rustix::system::uname()
            .nodename()
            .to_str()
            .unwrap()
            .to_owned();
        for host in [
            "127.0.0.1",
            "10.0.0.7:9464",
            "[::1]:9464",
            "[fe80::1]",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "worker:9464",
            "a.monitoring.svc",
            &own,
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "",
            "x",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9464",
            "worker.evil.example",
            "127.0.0.1@evil.example",
            "evil.example:80:9464",
            "[evil]",
            "[::1",
            "monitoring.svc",
            "0x7f.1",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
    }
}
