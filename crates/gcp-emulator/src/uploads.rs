//! Uploads to Cloud Storage over JSON/HTTP.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use bytes::Bytes;

use super::resumable::{UploadProgress, UploadTarget};
use super::storage::StorageService;

/// What the routes answer with.
#[derive(Clone)]
struct Uploads {
    storage: StorageService,
    /// The port of this server, where resumable uploads go on.
    port: u16,
}

pub(super) fn router(storage: StorageService, port: u16) -> Router {
    Router::new()
        .route("/upload/storage/v1/b/{bucket}/o", post(upload).put(resume))
        .layer(DefaultBodyLimit::disable())
        .with_state(Uploads { storage, port })
}

/// `uploadType=media`: the body is the object; `multipart`: its second part is; `resumable`: further requests bring it.
async fn upload(
    State(uploads): State<Uploads>,
    Path(bucket): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    data: Bytes,
) -> Response {
    let s = uploads.storage;
    let Some(name) = query.get("name").cloned() else {
        return (StatusCode::BAD_REQUEST, "name").into_response();
    };
    let wanted = query.get("ifGenerationMatch");
    let target = UploadTarget {
        bucket,
        name,
        if_generation_match: wanted.and_then(|g| g.parse().ok()),
    };
    if let Some(refused) = refusal(&s, &target) {
        return refused;
    }
    match query.get("uploadType").map(String::as_str) {
        Some("resumable") => s.uploads.begin(target, &headers, uploads.port),
        Some("multipart") => match second_part(&headers, &data) {
            Some(media) => store(&s, &target, media),
            None => (StatusCode::BAD_REQUEST, "multipart").into_response(),
        },
        _ => store(&s, &target, data),
    }
}

/// A request of a resumable upload.
async fn resume(
    State(Uploads { storage: s, .. }): State<Uploads>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    data: Bytes,
) -> Response {
    let id = query.get("upload_id").map(String::as_str);
    match s.uploads.resume(id.unwrap_or_default(), &headers, &data) {
        UploadProgress::Answer(answer) => answer,
        UploadProgress::Complete(target, data) => store(&s, &target, data),
    }
}

/// Why an upload may not replace what is there: a hold or a retention policy, or another generation than it names.
fn refusal(s: &StorageService, target: &UploadTarget) -> Option<Response> {
    let UploadTarget { bucket, name, .. } = target;
    let there = s.find(bucket, name, 0);
    if let Some(kept) = &there
        && let Err(e) = s.lock().versions.check_not_kept(bucket, name, kept)
    {
        return Some((StatusCode::FORBIDDEN, e.message().to_owned()).into_response());
    }
    let there = there.map_or(0, |o| o.generation);
    let fits = target.if_generation_match.is_none_or(|g| g == there);
    (!fits).then(|| (StatusCode::PRECONDITION_FAILED, "conditionNotMet").into_response())
}

fn store(s: &StorageService, target: &UploadTarget, data: Bytes) -> Response {
    if let Some(refused) = refusal(s, target) {
        return refused;
    }
    let UploadTarget { bucket, name, .. } = target;
    let (size, crc32c) = (data.len(), crc32c::crc32c(&data));
    let generation = s.put(bucket, name, data);
    let crc32c = base64::engine::general_purpose::STANDARD.encode(crc32c.to_be_bytes());
    let body = serde_json::json!({
        "kind": "storage#object", "bucket": bucket, "name": name, "crc32c": crc32c,
        "generation": generation.to_string(), "size": size.to_string(),
    });
    axum::Json(body).into_response()
}

/// The object in a multipart body: the part that follows the description.
fn second_part(headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = kind.split("boundary=").nth(1)?.trim_matches('"');
    let mark = format!("--{boundary}");
    let find = |what: &[u8], from: usize| {
        body[from..]
            .windows(what.len())
            .position(|w| w == what)
            .map(|i| i + from)
    };
    let first = find(mark.as_bytes(), 0)?;
    let second = find(mark.as_bytes(), first + mark.len())?;
    let start = find(b"\r\n\r\n", second)? + 4;
    let end = find(format!("\r\n{mark}").as_bytes(), start)?;
    Some(body.slice(start..end))
}
