//! Permissions: everybody has all of them except those that a test revokes.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use googleapis_tonic_google_iam_v1::google::iam::v1 as pb;

use super::grpc::unary;

/// Revoked permissions.
#[derive(Debug, Clone, Default)]
pub struct Access {
    denied: Arc<Mutex<BTreeSet<String>>>,
}

impl Access {
    /// Revokes a permission such as `pubsub.topics.publish`, as `testIamPermissions` reports it; calls still
    /// succeed.
    pub fn deny(&self, permission: &str) {
        self.denied.lock().insert(permission.to_owned());
    }

    fn of(&self, asked: impl IntoIterator<Item = String>) -> Vec<String> {
        let denied = self.denied.lock();
        asked.into_iter().filter(|p| !denied.contains(p)).collect()
    }

    /// Cloud Storage answers `testIamPermissions` over gRPC.
    pub(super) fn storage_router(&self) -> Router {
        let access = self.clone();
        let storage = move |r: pb::TestIamPermissionsRequest| {
            std::future::ready(Ok(pb::TestIamPermissionsResponse {
                permissions: access.of(r.permissions),
            }))
        };
        Router::new().route(
            "/google.storage.control.v2.StorageControl/TestIamPermissions",
            unary(storage),
        )
    }

    /// Pub/Sub answers it over REST.
    pub(super) fn pubsub_router(&self) -> Router {
        Router::new()
            .route("/v1/projects/{project}/topics/{topic}", post(test))
            .route(
                "/v1/projects/{project}/subscriptions/{subscription}",
                post(test),
            )
            .with_state(self.clone())
    }
}

#[derive(serde::Deserialize)]
struct PermissionQuery {
    permissions: Vec<String>,
}

/// `POST /v1/RESOURCE:testIamPermissions`
async fn test(
    State(access): State<Access>,
    Path((_, asked)): Path<(String, String)>,
    axum::Json(body): axum::Json<PermissionQuery>,
) -> Result<axum::Json<serde_json::Value>, StatusCode> {
    if asked.ends_with(":testIamPermissions") {
        Ok(axum::Json(
            serde_json::json!({ "permissions": access.of(body.permissions) }),
        ))
    } else {
        Err(StatusCode::NOT_FOUND)
    }
}
