//! Resumable uploads: a session for each, to which requests add bytes until one says how many there are. Only then is there
//! an object.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;

/// What an upload is to make.
#[derive(Debug, Clone)]
pub(super) struct UploadTarget {
    pub bucket: String,
    pub name: String,
    /// The generation that the object must have; 0: it must not exist.
    pub if_generation_match: Option<i64>,
}

#[derive(Debug)]
struct UploadSession {
    target: UploadTarget,
    received: Vec<u8>,
}

#[derive(Debug, Default)]
struct Sessions {
    open: HashMap<String, UploadSession>,
    last: u64,
}

/// The uploads that have begun and not ended.
#[derive(Debug, Clone, Default)]
pub(super) struct ResumableUploads(Arc<Mutex<Sessions>>);

/// What a request to a session does.
pub(super) enum UploadProgress {
    /// The answer to a request after which the upload goes on.
    Answer(Response),
    /// The upload is complete.
    Complete(UploadTarget, Bytes),
}

impl ResumableUploads {
    /// Begins an upload, which goes on at the `Location` of the answer: at the host that the client has named, and at `port`
    /// unless the client has named one. Google's client leaves it out.
    pub(super) fn begin(&self, target: UploadTarget, headers: &HeaderMap, port: u16) -> Response {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let host: Option<Authority> = host.and_then(|h| h.parse().ok());
        let Some(host) = host else {
            return (StatusCode::BAD_REQUEST, "host").into_response();
        };
        let (port, host) = (host.port_u16().unwrap_or(port), host.host());
        let mut sessions = self.0.lock();
        sessions.last += 1;
        let (id, bucket) = (sessions.last.to_string(), target.bucket.clone());
        let session = UploadSession {
            target,
            received: vec![],
        };
        sessions.open.insert(id.clone(), session);
        let location = format!(
            "http://{host}:{port}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}"
        );
        (StatusCode::OK, [(header::LOCATION, location)]).into_response()
    }

    /// Adds the bytes of a request.
    pub(super) fn resume(&self, id: &str, headers: &HeaderMap, data: &[u8]) -> UploadProgress {
        let refused = |status: StatusCode, why: &'static str| {
            UploadProgress::Answer((status, why).into_response())
        };
        let range = headers.get(header::CONTENT_RANGE);
        let range = range.and_then(|r| ContentRange::parse(r.to_str().ok()?));
        let Some(range) = range else {
            return refused(StatusCode::BAD_REQUEST, "Content-Range");
        };
        let mut sessions = self.0.lock();
        let Some(session) = sessions.open.get_mut(id) else {
            return refused(StatusCode::NOT_FOUND, "No such upload");
        };
        if let Some(first) = range.first {
            if first != session.received.len() as u64 {
                return refused(StatusCode::BAD_REQUEST, "Content-Range");
            }
            session.received.extend_from_slice(data);
        }
        let length = session.received.len() as u64;
        if range.total != Some(length) {
            return UploadProgress::Answer(incomplete(length));
        }
        match sessions.open.remove(id) {
            Some(session) => UploadProgress::Complete(session.target, session.received.into()),
            None => refused(StatusCode::NOT_FOUND, "No such upload"),
        }
    }

    /// How many uploads have begun and not ended.
    pub(super) fn open(&self) -> usize {
        self.0.lock().open.len()
    }
}

/// How many bytes have arrived.
fn incomplete(length: u64) -> Response {
    let status = StatusCode::PERMANENT_REDIRECT;
    match length.checked_sub(1) {
        Some(last) => (status, [(header::RANGE, format!("bytes=0-{last}"))]).into_response(),
        None => status.into_response(),
    }
}

/// `bytes 0-99/*`, `bytes 100-149/150`, `bytes */150` or `bytes */*`.
struct ContentRange {
    first: Option<u64>,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let first = match range {
            "*" => None,
            range => Some(range.split_once('-')?.0.parse().ok()?),
        };
        let total = match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        Some(ContentRange { first, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(uploads: &ResumableUploads, range: &str, data: &[u8]) -> Result<Bytes, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_RANGE, range.parse().unwrap());
        match uploads.resume("1", &headers, data) {
            UploadProgress::Answer(answer) => Err(answer.status()),
            UploadProgress::Complete(_, bytes) => Ok(bytes),
        }
    }

    #[test]
    fn an_upload_is_complete_when_its_length_is_known() {
        let uploads = ResumableUploads::default();
        let target = UploadTarget {
            bucket: "b".into(),
            name: "n".into(),
            if_generation_match: None,
        };
        for (named, wanted) in [
            ("localhost:1", "localhost:1"),
            ("127.0.0.1", "127.0.0.1:2"),
            ("[::1]", "[::1]:2"),
        ] {
            let uploads = ResumableUploads::default();
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, named.parse().unwrap());
            let begun = uploads.begin(target.clone(), &headers, 2);
            let location = begun.headers()[header::LOCATION].to_str().unwrap();
            let path = "/upload/storage/v1/b/b/o?uploadType=resumable&upload_id=1";
            assert_eq!(location, format!("http://{wanted}{path}"));
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        uploads.begin(target, &headers, 2);
        let more = Err(StatusCode::PERMANENT_REDIRECT);
        assert_eq!(put(&uploads, "bytes */*", b""), more);
        assert_eq!(put(&uploads, "bytes 0-2/*", b"abc"), more);
        let gap = put(&uploads, "bytes 4-4/5", b"e");
        assert_eq!(gap, Err(StatusCode::BAD_REQUEST));
        assert_eq!(uploads.open(), 1);
        let all = put(&uploads, "bytes 3-3/4", b"d");
        assert_eq!(all, Ok(Bytes::from_static(b"abcd")));
        assert_eq!(uploads.open(), 0);
    }
}
