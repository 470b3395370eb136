//! Errors of Cloud Storage: answers that a test sets in the place of the emulator's own, and buckets with Requester Pays.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use prost::Message;
use tonic::{Code, Status};

/// A call of Cloud Storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StorageCall {
    List,
    /// The metadata of an object.
    Get,
    Delete,
    TestPermissions,
    /// The bytes of an object.
    Read,
    Create,
}

/// An answer that refuses a call, as the service gives it: for metadata over gRPC, for bytes over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageErrorResponse {
    /// The status over HTTP.
    status: u16,
    /// `errors[].reason` of the JSON API.
    reason: String,
    message: String,
    /// The code over gRPC.
    code: i32,
    /// `ErrorInfo.reason` over gRPC; empty for no details.
    error_info: String,
}

impl StorageErrorResponse {
    /// An answer with a status of HTTP, and with the code of gRPC that corresponds to it.
    pub fn new(status: u16, reason: &str, message: &str) -> Self {
        let code = match status {
            400 => Code::InvalidArgument,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            412 => Code::FailedPrecondition,
            429 => Code::ResourceExhausted,
            503 => Code::Unavailable,
            _ => Code::Unknown,
        };
        StorageErrorResponse {
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
            code: code.into(),
            error_info: String::new(),
        }
    }

    /// The same answer with `FAILED_PRECONDITION` over gRPC, whatever its status.
    pub fn as_precondition(self) -> Self {
        StorageErrorResponse {
            code: Code::FailedPrecondition.into(),
            ..self
        }
    }

    /// The same answer with the reason that `google.rpc.ErrorInfo` has over gRPC.
    pub fn with_error_info(self, reason: &str) -> Self {
        StorageErrorResponse {
            error_info: reason.to_owned(),
            ..self
        }
    }

    fn answer(&self, call: StorageCall) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        match call {
            StorageCall::Read => (status, self.message.clone()).into_response(),
            StorageCall::Create => {
                let error = serde_json::json!({
                    "domain": "global", "reason": self.reason, "message": self.message,
                });
                let body = serde_json::json!({ "error": {
                    "code": self.status, "message": self.message, "errors": [error],
                }});
                (status, axum::Json(body)).into_response()
            }
            StorageCall::List
            | StorageCall::Get
            | StorageCall::Delete
            | StorageCall::TestPermissions => self.grpc_status().into_http::<Body>(),
        }
    }

    fn grpc_status(&self) -> Status {
        let info = ErrorInfo {
            reason: self.error_info.clone(),
            domain: "googleapis.com".to_owned(),
        };
        let info = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec(),
        };
        let details = if self.error_info.is_empty() {
            vec![]
        } else {
            vec![info]
        };
        let status = RpcStatus {
            code: self.code,
            message: self.message.clone(),
            details,
        };
        let details = status.encode_to_vec();
        Status::with_details(Code::from_i32(self.code), &self.message, details.into())
    }
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`, without its metadata.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

#[derive(Debug, Default)]
struct StorageErrorState {
    scripted: BTreeMap<StorageCall, StorageErrorResponse>,
    /// The project that has to be named to be billed, for each bucket with Requester Pays.
    payers: HashMap<String, String>,
}

/// The errors of the Cloud Storage side of an emulator.
#[derive(Debug, Clone, Default)]
pub struct StorageErrors {
    inner: Arc<Mutex<StorageErrorState>>,
}

impl StorageErrors {
    /// Answers a call with an error from now on.
    pub fn fail(&self, call: StorageCall, error: &StorageErrorResponse) {
        self.inner.lock().scripted.insert(call, error.clone());
    }

    /// Answers all calls again, but for those to buckets with Requester Pays.
    pub fn clear(&self) {
        self.inner.lock().scripted.clear();
    }

    /// Serves only requests to this bucket that are billed to `project`.
    pub fn set_requester_pays(&self, bucket: &str, project: &str) {
        let mut inner = self.inner.lock();
        inner.payers.insert(bucket.to_owned(), project.to_owned());
    }

    /// The same routes, which answer only calls without an error.
    pub(super) fn guard(&self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self.clone(), check))
    }

    fn of(
        &self,
        call: StorageCall,
        bucket: &str,
        payer: Option<&str>,
    ) -> Option<StorageErrorResponse> {
        let inner = self.inner.lock();
        let unpaid = match (inner.payers.get(bucket), payer) {
            (None, _) => None,
            (Some(wanted), Some(payer)) if wanted == payer => None,
            (Some(_), None) => Some(StorageErrorResponse::new(
                400,
                "required",
                "Bucket is a requester pays bucket but no user project provided.",
            )),
            (Some(_), Some(_)) => Some(StorageErrorResponse::new(
                403,
                "forbidden",
                "The caller does not have serviceusage.services.use access to the Google Cloud project.",
            )),
        };
        unpaid.or_else(|| inner.scripted.get(&call).cloned())
    }
}

async fn check(State(errors): State<StorageErrors>, request: Request, next: Next) -> Response {
    let payer = header(&request, "x-goog-user-project");
    let failed = call_of(&request).and_then(|(call, bucket)| {
        let error = errors.of(call, bucket, payer)?;
        Some(error.answer(call))
    });
    match failed {
        Some(answer) => answer,
        None => next.run(request).await,
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

/// The call, and the bucket that it is made to.
fn call_of(request: &Request) -> Option<(StorageCall, &str)> {
    let path = request.uri().path();
    let over_http = [
        ("/storage/v1/b/", StorageCall::Read),
        ("/upload/storage/v1/b/", StorageCall::Create),
    ];
    for (start, call) in over_http {
        if let Some(rest) = path.strip_prefix(start) {
            return Some((call, rest.split('/').next()?));
        }
    }
    let call = match path.rsplit('/').next()? {
        "ListObjects" => StorageCall::List,
        "GetObject" => StorageCall::Get,
        "DeleteObject" => StorageCall::Delete,
        "TestIamPermissions" => StorageCall::TestPermissions,
        _ => return None,
    };
    // `bucket=projects%2F_%2Fbuckets%2FNAME`
    let routed = header(request, "x-goog-request-params")?;
    Some((call, routed.rsplit("%2F").next()?))
}
