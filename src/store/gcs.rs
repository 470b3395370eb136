//! Backups in Cloud Storage, through Google's clients: metadata over gRPC, bytes over JSON/HTTP. The
//! clients' own resume and retry of reads are off; `backup` does both, with a stall timeout that the
//! clients lack.

use crate::job::Generation;
use pgdump_archive::{Crc32c, member_name};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::error::CredentialsError;
use google_cloud_gax::error::rpc::{Code, StatusDetails};
use google_cloud_gax::options::RequestOptionsBuilder;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_gax::retry_policy::{NeverRetry, RetryPolicyExt as _};
use google_cloud_storage::builder::storage_control::ListObjects;
use google_cloud_storage::client::{Storage, StorageControl};
use google_cloud_storage::model_ext::ReadRange;
use google_cloud_storage::read_resume_policy::NeverResume;
use google_cloud_storage::retry_policy::RetryableErrors;
use google_cloud_storage::streaming_source::StreamingSource;
use tokio::sync::Semaphore;

use super::backup_store::{
    BackupStore, Listing, NameFilter, NewestObjects, ObjectBytes, ObjectGeneration, ObjectLock,
    StoredObject,
};
use super::gcs_errors::{Answer, AnswerStatus, Billing, GcsCall, GcsRequest, shell_word};
use super::gcs_lifecycle::{lock_of, state_of, time_of, whole_second};
use super::object_body::{IncompleteBody, ObjectBody};
use crate::config::StorageEmulator;
use crate::error::{StorageError, StorageKind, report};

/// How long the clients retry one call.
const CALL_BUDGET: Duration = Duration::from_secs(60);

/// How many attempts the requests of one long upload have together. A time limit would end it, however well it proceeds.
const UPLOAD_ATTEMPTS: u32 = 20;

/// How long to look for a deleted object: whether it is found only changes the words of an error.
const DELETED_LIMIT: Duration = Duration::from_secs(5);

/// How long to look for the retention policy of the bucket: it only explains what is kept.
const BUCKET_LIMIT: Duration = Duration::from_secs(5);

/// The streams that downloads may open beside their first ones: enough for two at their most. Each takes about one MiB of
/// read-ahead, so this bounds what they add to the memory of a process.
const SPARE_STREAMS: usize = 14;

pub(super) struct GcsStore {
    control: StorageControl,
    data: Storage,
    spare_streams: Semaphore,
    bucket: String,
    prefix: String,
    billing: Billing,
    is_emulated: bool,
}

impl GcsStore {
    /// A client for the objects of a bucket below a prefix.
    pub async fn connect(
        (bucket, prefix): (&str, &str),
        billing: Billing,
        emulator: Option<&StorageEmulator>,
    ) -> Result<Self, StorageError> {
        let mut control = StorageControl::builder()
            .with_retry_policy(RetryableErrors.with_time_limit(CALL_BUDGET));
        let mut data =
            Storage::builder().with_retry_policy(RetryableErrors.with_time_limit(CALL_BUDGET));
        if let Some(e) = emulator {
            let anyone = anonymous::Builder::new().build();
            control = control
                .with_endpoint(&e.grpc)
                .with_credentials(anyone.clone());
            data = data.with_endpoint(&e.json).with_credentials(anyone);
        }
        let no_client = |e: google_cloud_gax::client_builder::Error| {
            StorageError::new(
                StorageKind::AccessDenied,
                "failed to create the Cloud Storage client (check the credentials)",
            )
            .with_source(e)
        };
        Ok(GcsStore {
            control: control.build().await.map_err(no_client)?,
            data: data.build().await.map_err(no_client)?,
            spare_streams: Semaphore::new(SPARE_STREAMS),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            billing,
            is_emulated: emulator.is_some(),
        })
    }

    /// The project that every request is billed to, if it is not the bucket's own.
    fn user_project(&self) -> Option<&str> {
        match &self.billing {
            Billing::BackupBucket(project) => project.as_deref(),
            Billing::OtherBucket => None,
        }
    }

    /// The same request, billed to the user project.
    fn billed<B: RequestOptionsBuilder>(&self, request: B) -> B {
        match self.user_project() {
            Some(project) => request.with_quota_project(project),
            None => request,
        }
    }

    fn resource(&self) -> String {
        format!("projects/_/buckets/{}", self.bucket)
    }

    /// A call, for its error.
    fn asked(&self, call: GcsCall, name: &str) -> GcsRequest {
        GcsRequest {
            call,
            bucket: self.bucket.clone(),
            name: format!("{}{name}", self.prefix),
            billing: self.billing.clone(),
        }
    }

    fn fault(&self, e: google_cloud_gax::error::Error, call: GcsCall, name: &str) -> StorageError {
        error_of(e, &self.asked(call, name))
    }

    /// All pages of a listing.
    async fn list_into(
        &self,
        mut found: Listing,
        prefix: &str,
        wanted: NameFilter,
    ) -> Result<Listing, StorageError> {
        let mut pages = self.listing(prefix).by_item();
        while let Some(object) = pages.next().await {
            let object = self.object(object.map_err(|e| self.fault(e, GcsCall::List, prefix))?);
            if wanted(&object.name) {
                found.push(object)?;
            }
        }
        Ok(found)
    }

    /// A listing of the objects below a prefix.
    fn listing(&self, prefix: &str) -> ListObjects {
        let list = self
            .control
            .list_objects()
            .set_parent(self.resource())
            .set_prefix(format!("{}{prefix}", self.prefix));
        self.billed(list)
    }

    /// All pages of a listing of generations.
    async fn generations_of(
        &self,
        list: ListObjects,
        prefix: &str,
        wanted: NameFilter,
    ) -> Result<Vec<ObjectGeneration>, StorageError> {
        let mut memory = Listing::of(&self.uri(prefix));
        let (mut found, mut pages) = (vec![], list.by_item());
        while let Some(object) = pages.next().await {
            let o = object.map_err(|e| self.fault(e, GcsCall::List, prefix))?;
            let state = state_of(&o);
            let object = self.object(o);
            if wanted(&object.name) {
                memory.reserve(&object)?;
                found.push(ObjectGeneration { object, state });
            }
        }
        Ok(found)
    }

    fn object(&self, o: google_cloud_storage::model::Object) -> StoredObject {
        let created = o.create_time.and_then(|t| time_of(t.seconds(), t.nanos()));
        StoredObject {
            name: o
                .name
                .strip_prefix(&self.prefix)
                .unwrap_or(&o.name)
                .to_owned(),
            size: u64::try_from(o.size).unwrap_or_default(),
            created: created.unwrap_or_default(),
            crc32c: o.checksums.and_then(|c| c.crc32c).map(Crc32c),
            generation: Generation(o.generation),
            members: None,
            is_unlisted: false,
            obstacle: None,
        }
    }
}

/// The error of a call.
fn error_of(e: google_cloud_gax::error::Error, asked: &GcsRequest) -> StorageError {
    let answer = answer_of(&e);
    let unexplained = || StorageError::new(answer.kind(asked), asked.uri()).with_source(e);
    answer.error(asked).unwrap_or_else(unexplained)
}

/// The service's answer in an error of the client.
fn answer_of(e: &google_cloud_gax::error::Error) -> Answer {
    let e = last_attempt(e);
    let (mut reasons, mut perimeter_id) = (vec![], None);
    for detail in e.status().into_iter().flat_map(|s| &s.details) {
        match detail {
            StatusDetails::ErrorInfo(info) => {
                reasons.push(info.reason.clone());
                perimeter_id = perimeter_id.or_else(|| info.metadata.get("uid").cloned());
            }
            StatusDetails::PreconditionFailure(failure) => {
                reasons.extend(failure.violations.iter().map(|v| v.r#type.clone()));
            }
            _ => {}
        }
    }
    Answer {
        status: status_of(e),
        reasons,
        text: text_of(e).unwrap_or_default(),
        perimeter_id,
    }
}

/// What the service, or the one that issues tokens, says to people.
fn text_of(e: &google_cloud_gax::error::Error) -> Option<String> {
    if e.is_authentication() {
        return std::error::Error::source(e).map(report);
    }
    match (e.status(), e.http_payload()) {
        (Some(status), _) => Some(status.message.clone()),
        // Reads of bytes are refused in plain text.
        (None, Some(payload)) => Some(String::from_utf8_lossy(payload).into_owned()),
        (None, None) => None,
    }
}

/// The error of the last attempt, where the client gave up repeating a call.
fn last_attempt(e: &google_cloud_gax::error::Error) -> &google_cloud_gax::error::Error {
    let mut last = e;
    while last.is_exhausted() {
        let source = std::error::Error::source(last);
        match source.and_then(|s| s.downcast_ref::<google_cloud_gax::error::Error>()) {
            Some(inner) => last = inner,
            None => break,
        }
    }
    last
}

fn status_of(e: &google_cloud_gax::error::Error) -> AnswerStatus {
    if e.is_authentication() {
        let source = std::error::Error::source(e);
        let cause = source.and_then(|s| s.downcast_ref::<CredentialsError>());
        // The server that issues tokens may be back soon.
        return if cause.is_some_and(CredentialsError::is_transient) {
            AnswerStatus::Unavailable
        } else {
            AnswerStatus::NoToken
        };
    }
    match (e.http_status_code(), e.status().map(|s| s.code)) {
        (Some(401), _) | (None, Some(Code::Unauthenticated)) => AnswerStatus::Unauthenticated,
        (Some(403), _) | (None, Some(Code::PermissionDenied)) => AnswerStatus::Forbidden,
        (Some(404), _) | (None, Some(Code::NotFound)) => AnswerStatus::NotFound,
        (Some(412), _) | (None, Some(Code::FailedPrecondition)) => AnswerStatus::Precondition,
        (Some(400), _) | (None, Some(Code::InvalidArgument)) => AnswerStatus::Invalid,
        (Some(429), _) | (None, Some(Code::ResourceExhausted)) => AnswerStatus::TooMany,
        _ => AnswerStatus::Unavailable,
    }
}

/// The bytes of an upload. They cannot be read again, so the client keeps those of one request (8 MiB).
struct UploadedBody(ObjectBody);

impl StreamingSource for UploadedBody {
    type Error = IncompleteBody;

    async fn next(&mut self) -> Option<Result<Bytes, IncompleteBody>> {
        self.0.next().await
    }
}

impl BackupStore for GcsStore {
    fn greet(&self, within: Duration) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move {
            let ask = self
                .control
                .list_objects()
                .set_parent(self.resource())
                .set_prefix(self.prefix.clone())
                .set_page_size(1);
            let limit = within / 2;
            // An emulator that cannot be reached is not running, or its address is wrong: another attempt changes nothing.
            let ask = if self.is_emulated {
                ask.with_retry_policy(NeverRetry.with_time_limit(limit))
            } else {
                ask.with_retry_policy(RetryableErrors.with_time_limit(limit))
            };
            let answer = self.billed(ask).send().await;
            match answer.map_err(|e| self.fault(e, GcsCall::List, "")) {
                // The call that needs it reports everything else.
                Err(e) if e.kind() == StorageKind::DownloadFailed => Err(e),
                _ => Ok(()),
            }
        })
    }

    fn check_exists(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move {
            let ask = self
                .control
                .list_objects()
                .set_parent(self.resource())
                .set_prefix(self.prefix.clone())
                .set_page_size(1);
            let answer = self.billed(ask).send().await.map(drop);
            answer.map_err(|e| self.fault(e, GcsCall::List, ""))
        })
    }

    fn list_named<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        self.members_named(prefix, wanted)
    }

    fn members_named<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        Box::pin(async move {
            let listing = Listing::of(&self.uri(prefix));
            let found = self.list_into(listing, prefix, wanted).await?;
            Ok(found.into_objects())
        })
    }

    fn newest_members<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
        most: usize,
    ) -> BoxFuture<'a, Result<NewestObjects, StorageError>> {
        Box::pin(async move {
            let listing = Listing::of_newest(&self.uri(prefix), most);
            let found = self.list_into(listing, prefix, wanted).await?;
            Ok(found.into_newest())
        })
    }

    fn stat<'a>(
        &'a self,
        name: &'a str,
        generation: Option<Generation>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>> {
        Box::pin(async move {
            let mut get = self
                .control
                .get_object()
                .set_bucket(self.resource())
                .set_object(format!("{}{name}", self.prefix));
            if let Some(g) = generation {
                get = get.set_generation(g.0);
            }
            let object = self.billed(get).send().await;
            let object = object.map_err(|e| self.fault(e, GcsCall::Describe, name))?;
            Ok(self.object(object))
        })
    }

    fn read<'a>(
        &'a self,
        object: &'a StoredObject,
        offset: u64,
        length: Option<u64>,
    ) -> BoxFuture<'a, Result<ObjectBytes, StorageError>> {
        Box::pin(async move {
            if object.size == 0 {
                return Ok(futures::stream::empty().boxed());
            }
            let name = format!("{}{}", self.prefix, object.name);
            let mut read = self
                .data
                .read_object(self.resource(), name)
                .set_generation(object.generation.0)
                .compute_crc32c(false)
                // The caller retries, because it knows the stall timeout.
                .with_retry_policy(NeverRetry)
                .with_read_resume_policy(NeverResume);
            match length {
                Some(n) => read = read.set_read_range(ReadRange::segment(offset, n)),
                None if offset > 0 => read = read.set_read_range(ReadRange::offset(offset)),
                None => {}
            }
            if let Some(project) = self.user_project() {
                read = read.with_quota_project(project);
            }
            let asked = self.asked(GcsCall::Read, &object.name);
            let response = read.send().await.map_err(|e| error_of(e, &asked))?;
            let stream =
                futures::stream::unfold(
                    response,
                    |mut r| async move { r.next().await.map(|c| (c, r)) },
                );
            let stream = stream.map(move |chunk| chunk.map_err(|e| error_of(e, &asked)));
            Ok(stream.boxed())
        })
    }

    /// Each has a connection of its own, because the client speaks HTTP/1.1.
    fn spare_streams(&self) -> Option<&Semaphore> {
        Some(&self.spare_streams)
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        content: Bytes,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        Box::pin(async move {
            let full = format!("{}{name}", self.prefix);
            let mut write = self
                .data
                .write_object(self.resource(), full, content)
                .set_if_generation_match(0_i64)
                .set_content_type(content_type);
            if let Some(project) = self.user_project() {
                write = write.with_quota_project(project);
            }
            let written = write.send_unbuffered().await;
            match written.map_err(|e| self.fault(e, GcsCall::Create, name)) {
                Ok(object) => Ok(Some(self.object(object))),
                // This may also be a retry of an attempt that succeeded but whose answer was lost.
                Err(e) if e.kind() == StorageKind::Changed => Ok(None),
                Err(e) => Err(e),
            }
        })
    }

    fn create_of<'a>(
        &'a self,
        name: &'a str,
        body: ObjectBody,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        Box::pin(async move {
            let full = format!("{}{name}", self.prefix);
            let mut write = self
                .data
                .write_object(self.resource(), full, UploadedBody(body))
                .set_if_generation_match(0_i64)
                .set_content_type(content_type)
                .with_retry_policy(RetryableErrors.with_attempt_limit(UPLOAD_ATTEMPTS));
            if let Some(project) = self.user_project() {
                write = write.with_quota_project(project);
            }
            // Nothing exists before the last request, so an upload that is dropped leaves nothing.
            let written = write.send_buffered().await;
            match written.map_err(|e| self.fault(e, GcsCall::Create, name)) {
                Ok(object) => Ok(Some(self.object(object))),
                Err(e) if e.kind() == StorageKind::Changed => Ok(None),
                Err(e) => Err(e),
            }
        })
    }

    fn delete<'a>(&'a self, object: &'a StoredObject) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let delete = self
                .control
                .delete_object()
                .set_bucket(self.resource())
                .set_object(format!("{}{}", self.prefix, object.name))
                .set_if_generation_match(object.generation.0);
            let deleted = self.billed(delete).send().await;
            deleted.map_err(|e| self.fault(e, GcsCall::Delete, &object.name))
        })
    }

    fn permissions<'a>(
        &'a self,
        wanted: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Option<Vec<String>>, StorageError>> {
        Box::pin(async move {
            let ask = self
                .control
                .test_iam_permissions()
                .set_resource(self.resource())
                .set_permissions(wanted.iter().copied());
            match self.billed(ask).send().await {
                Ok(answer) => Ok(Some(answer.permissions)),
                Err(e) if e.status().is_some_and(|s| s.code == Code::Unimplemented) => Ok(None),
                Err(e) => Err(self.fault(e, GcsCall::List, "")),
            }
        })
    }

    fn find_deleted<'a>(
        &'a self,
        name: &'a str,
        generation: Option<Generation>,
    ) -> BoxFuture<'a, Option<String>> {
        Box::pin(async move {
            let full = format!("{}{name}", self.prefix);
            let list = self
                .control
                .list_objects()
                .set_parent(self.resource())
                .set_prefix(full.as_str())
                .set_soft_deleted(true)
                .with_retry_policy(NeverRetry);
            let listed = tokio::time::timeout(DELETED_LIMIT, self.billed(list).send()).await;
            // Without soft deletion or the permission for it, nothing is known.
            let mut objects = listed.ok()?.ok()?.objects;
            let folder = format!("{}/", full.trim_end_matches('/'));
            let is_toc = |name: &str| name.strip_prefix(&folder).is_some_and(member_name::is_toc);
            objects.retain(|o| {
                o.soft_delete_time.is_some()
                    && (o.name == full || is_toc(&o.name))
                    && generation.is_none_or(|g| g.0 == o.generation)
            });
            let newest = objects.into_iter().max_by_key(|o| o.generation)?;
            let (deleted, end) = (newest.soft_delete_time, newest.hard_delete_time);
            let deleted = deleted.and_then(|t| whole_second(t.seconds()));
            let end = end.and_then(|t| whole_second(t.seconds()));
            let at = deleted.map_or_else(String::new, |t| format!(" at {t}"));
            let until = end.map_or_else(String::new, |t| format!(" until {t}"));
            let what = if newest.name == full {
                format!("gs://{}/{full}#{}", self.bucket, newest.generation)
            } else {
                format!("gs://{}/{folder}**", self.bucket)
            };
            let what_is_named = shell_word(&what);
            let by_flag = if newest.name == full {
                format!("pgrestored restore {what_is_named} --restore-soft-deleted, or ")
            } else {
                String::new()
            };
            Some(format!(
                "it was deleted{at}, and Cloud Storage keeps it{until}: {by_flag}gcloud storage restore {what_is_named}"
            ))
        })
    }

    fn has_generations(&self) -> bool {
        true
    }

    fn generations<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<ObjectGeneration>, StorageError>> {
        Box::pin(async move {
            let list = self.listing(prefix).set_versions(true);
            self.generations_of(list, prefix, wanted).await
        })
    }

    fn soft_deleted<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<ObjectGeneration>, StorageError>> {
        Box::pin(async move {
            let list = self.listing(prefix).set_soft_deleted(true);
            self.generations_of(list, prefix, wanted).await
        })
    }

    fn undelete<'a>(
        &'a self,
        name: &'a str,
        generation: Generation,
        live: Option<Generation>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>> {
        Box::pin(async move {
            let restore = self
                .control
                .restore_object()
                .set_bucket(self.resource())
                .set_object(format!("{}{name}", self.prefix))
                .set_generation(generation.0)
                .set_if_generation_match(live.map_or(0, |g| g.0));
            let restored = self.billed(restore).send().await;
            let restored = restored.map_err(|e| self.fault(e, GcsCall::Undelete, name))?;
            Ok(self.object(restored))
        })
    }

    fn locks<'a>(
        &'a self,
        prefix: &'a str,
        now: jiff::Timestamp,
    ) -> BoxFuture<'a, Result<Vec<ObjectLock>, StorageError>> {
        Box::pin(async move {
            let mut memory = Listing::of(&self.uri(prefix));
            let (mut found, mut pages) = (vec![], self.listing(prefix).by_item());
            while let Some(object) = pages.next().await {
                let o = object.map_err(|e| self.fault(e, GcsCall::List, prefix))?;
                let (hold, until) = lock_of(&o, now);
                if hold.is_none() && until.is_none() {
                    continue;
                }
                let object = self.object(o);
                memory.reserve(&object)?;
                found.push(ObjectLock {
                    name: object.name,
                    generation: object.generation,
                    hold,
                    until,
                });
            }
            Ok(found)
        })
    }

    fn is_retention_locked(&self) -> BoxFuture<'_, Option<bool>> {
        Box::pin(async move {
            let ask = self
                .control
                .get_bucket()
                .set_name(self.resource())
                .with_retry_policy(NeverRetry);
            // It needs a permission (storage.buckets.get) that nothing else does.
            let asked = tokio::time::timeout(BUCKET_LIMIT, self.billed(ask).send()).await;
            let policy = asked.ok()?.ok()?.retention_policy?;
            Some(policy.is_locked)
        })
    }

    fn uri(&self, name: &str) -> String {
        format!("gs://{}/{}{name}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use google_cloud_gax::error::Error;
    use google_cloud_gax::error::rpc::Status as RpcStatus;

    use super::*;
    use crate::error::{Blame, FailureReason as R, RestoreError};

    fn asked(call: GcsCall, billing: Billing) -> GcsRequest {
        GcsRequest {
            call,
            bucket: "backups".into(),
            name: "nightly/app.dump".into(),
            billing,
        }
    }

    fn unset() -> Billing {
        Billing::BackupBucket(None)
    }

    fn payer() -> Billing {
        Billing::BackupBucket(Some("payer".into()))
    }

    /// An error as the JSON API documents it.
    fn json(code: u16, reason: &str, message: &str) -> Error {
        let body = serde_json::json!({ "error": {
            "code": code, "message": message,
            "errors": [{ "domain": "global", "reason": reason, "message": message }],
        }});
        let status = RpcStatus::try_from(&Bytes::from(body.to_string())).unwrap();
        Error::service_with_http_metadata(status, Some(code), None)
    }

    /// An answer to a read of bytes.
    fn text(code: u16, message: &str) -> Error {
        Error::http(code, Default::default(), message.to_owned().into())
    }

    fn grpc(code: Code, message: &str) -> Error {
        Error::service(RpcStatus::default().set_code(code).set_message(message))
    }

    /// An answer over gRPC with one detail, as its JSON.
    fn detailed(code: Code, message: &str, detail: serde_json::Value) -> Error {
        let body = serde_json::json!({ "error": { "message": message, "details": [detail] } });
        let status = RpcStatus::try_from(&Bytes::from(body.to_string())).unwrap();
        Error::service(status.set_code(code))
    }

    fn info(reason: &str) -> serde_json::Value {
        serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason, "domain": "googleapis.com",
            "metadata": { "uid": "d3adb33f", "service": "storage.googleapis.com" },
        })
    }

    /// What is found in the error of each answer: reason, blame, a part of the sentence, and a part of the fix (none if
    /// there is none).
    type Case<'a> = (Error, GcsRequest, R, Blame, &'a str, &'a str);

    fn check(cases: Vec<Case<'_>>) {
        for (e, asked, reason, blame, what, fix) in cases {
            let said = format!("{e}");
            let e = RestoreError::from(error_of(e, &asked));
            let message = report(&e);
            assert_eq!(
                (e.reason(), e.blame()),
                (reason, blame),
                "{said}: {message}"
            );
            assert!(
                message.starts_with("gs://backups/nightly/app.dump: "),
                "{message}"
            );
            assert!(message.contains(what), "{what}: {message}");
            match e.fix() {
                Some(found) => {
                    assert!(!fix.is_empty() && found.contains(fix), "{fix}: {found}");
                    assert!(message.ends_with(found), "{message}");
                }
                None => assert_eq!(fix, "", "{message}"),
            }
        }
    }

    const FORBIDDEN: &str = "worker@p.iam.gserviceaccount.com does not have storage.objects.get access to the Google Cloud \
        Storage object. Permission 'storage.objects.get' denied on resource (or it may not exist).";
    const EXPIRED: &str = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or \
        other valid authentication credential.";
    const PERIMETER: &str = "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: AbC-1_2";

    const FILTERED: &str =
        "There is an IP filtering condition that is preventing access to the resource.";

    #[test]
    fn refused_tokens_and_missing_permissions_are_denials() {
        let of = |e, call, what, fix| {
            let asked = asked(call, unset());
            (e, asked, R::AccessDenied, Blame::Infrastructure, what, fix)
        };
        let expired = || detailed(Code::Unauthenticated, EXPIRED, info("ACCESS_TOKEN_EXPIRED"));
        let disabled = detailed(
            Code::Unauthenticated,
            EXPIRED,
            info("ACCOUNT_STATE_INVALID"),
        );
        let scope = detailed(
            Code::PermissionDenied,
            "Request had insufficient authentication scopes.",
            info("ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
        );
        let lost = CredentialsError::from_msg(false, "invalid_grant: reauth related error");
        check(vec![
            of(
                json(401, "authError", "Invalid Credentials"),
                GcsCall::Describe,
                "(Invalid Credentials)",
                "clock",
            ),
            of(
                json(401, "required", "Login Required"),
                GcsCall::List,
                "access token",
                "clock",
            ),
            of(
                expired(),
                GcsCall::List,
                "missing, expired or revoked",
                "gcloud auth application-default login",
            ),
            of(
                text(401, "Invalid Credentials"),
                GcsCall::Read,
                "access token",
                "clock",
            ),
            of(
                Error::authentication(lost),
                GcsCall::List,
                "invalid_grant",
                "GOOGLE_APPLICATION_CREDENTIALS",
            ),
            of(
                disabled,
                GcsCall::List,
                "disabled or deleted",
                "service-accounts enable",
            ),
            of(scope, GcsCall::List, "lacks the scope", "Workload Identity"),
            of(
                json(403, "forbidden", FORBIDDEN),
                GcsCall::Describe,
                "lacks storage.objects.get (",
                "=roles/storage.objectViewer",
            ),
            of(
                grpc(Code::PermissionDenied, FORBIDDEN),
                GcsCall::List,
                "(worker@p.iam",
                "buckets add-iam-policy-binding gs://backups ",
            ),
            of(
                text(403, FORBIDDEN),
                GcsCall::Read,
                "lacks storage.objects.get",
                "names of buckets are global",
            ),
            of(
                json(403, "insufficientPermissions", "Insufficient Permission"),
                GcsCall::Create,
                "lacks a permission",
                "objectCreator",
            ),
            of(
                json(403, "forbidden", "Forbidden"),
                GcsCall::Delete,
                "lacks a permission (Forbidden)",
                "objectUser",
            ),
        ]);
    }

    #[test]
    fn the_project_that_is_billed_is_named_with_its_setting() {
        let of = |e, billing, what, fix| {
            let asked = asked(GcsCall::List, billing);
            (e, asked, R::AccessDenied, Blame::Infrastructure, what, fix)
        };
        let missing = "Bucket is a requester pays bucket but no user project provided.";
        let invalid = "User project specified in the request is invalid.";
        let denied = "worker@p.iam.gserviceaccount.com does not have serviceusage.services.use access to the Google Cloud \
            project. Permission 'serviceusage.services.use' denied on resource (or it may not exist).";
        let closed = "The project to be billed is associated with a closed billing account.";
        check(vec![
            // The service documents the reason `userProjectMissing`, and sends `required`.
            of(
                json(400, "required", missing),
                unset(),
                "Requester Pays",
                "set BACKUP_USER_PROJECT to",
            ),
            of(
                json(400, "userProjectMissing", "x"),
                unset(),
                "Requester Pays",
                "BACKUP_USER_PROJECT",
            ),
            of(
                text(400, missing),
                Billing::OtherBucket,
                "Requester Pays",
                "set GOOGLE_CLOUD_QUOTA_PROJECT to",
            ),
            of(
                grpc(Code::InvalidArgument, missing),
                unset(),
                "Requester Pays",
                "serviceUsageConsumer",
            ),
            of(
                json(400, "invalid", invalid),
                payer(),
                "the project payer,",
                "correct BACKUP_USER_PROJECT",
            ),
            of(
                json(400, "userProjectInvalid", "x"),
                unset(),
                "quota project",
                "GOOGLE_CLOUD_QUOTA_PROJECT",
            ),
            of(
                json(403, "forbidden", denied),
                payer(),
                "bill requests to the project payer",
                "add-iam-policy-binding payer ",
            ),
            of(
                json(403, "UserProjectAccessDenied", "x"),
                payer(),
                "may not bill",
                "BACKUP_USER_PROJECT",
            ),
            of(
                detailed(Code::PermissionDenied, "x", info("USER_PROJECT_DENIED")),
                payer(),
                "may not bill",
                "payer ",
            ),
            of(
                json(403, "UserProjectAccountProblem", closed),
                payer(),
                "billing is disabled",
                "billing projects link",
            ),
            of(
                json(403, "accountDisabled", "x"),
                unset(),
                "billing is disabled",
                "billing projects link",
            ),
            of(
                detailed(Code::PermissionDenied, "x", info("BILLING_DISABLED")),
                unset(),
                "billing is disabled",
                "link",
            ),
            of(
                json(403, "accessNotConfigured", "x"),
                unset(),
                "API of Cloud Storage",
                "services enable storage",
            ),
            of(
                detailed(Code::PermissionDenied, "x", info("SERVICE_DISABLED")),
                unset(),
                "API",
                "services enable",
            ),
        ]);
    }

    #[test]
    fn policies_and_perimeters_name_what_finds_them() {
        let of = |e, what, fix| {
            let asked = asked(GcsCall::Describe, unset());
            (e, asked, R::AccessDenied, Blame::Infrastructure, what, fix)
        };
        let uid = detailed(
            Code::PermissionDenied,
            "Request is prohibited by organization's policy.",
            info("SECURITY_POLICY_VIOLATED"),
        );
        check(vec![
            of(
                json(403, "forbidden", PERIMETER),
                "VPC Service Controls",
                "under AbC-1_2",
            ),
            of(
                text(403, PERIMETER),
                "VPC Service Controls",
                "under AbC-1_2",
            ),
            of(uid, "VPC Service Controls", "under d3adb33f"),
            of(
                json(403, "forbidden", FILTERED),
                "IP filter denies",
                "buckets describe gs://backups ",
            ),
            of(text(403, FILTERED), "IP filter denies", "network"),
            of(
                json(412, "orgPolicyConstraintFailed", "x"),
                "policy of the organization",
                "constraint",
            ),
        ]);
    }

    #[test]
    fn keys_that_cannot_be_used_are_told_apart() {
        let of = |e, call, what, fix| {
            let asked = asked(call, unset());
            (e, asked, R::AccessDenied, Blame::Infrastructure, what, fix)
        };
        let disabled = "Cloud KMS key is disabled, destroyed, or scheduled to be destroyed.";
        let violated = serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
            "violations": [{ "type": "KEY_DISABLED", "subject": "", "description": "" }],
        });
        let denied = "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has been \
            authorized to use this key.";
        let name = "names the key";
        check(vec![
            of(
                json(400, "cloudKmsDisabledKey", disabled),
                GcsCall::Read,
                "Cloud KMS key is disabled",
                name,
            ),
            of(
                text(400, disabled),
                GcsCall::Read,
                "destroyed",
                "objects describe gs://backups/nightly/app.dump",
            ),
            // Over gRPC, this was taken for an object that was overwritten.
            of(
                grpc(Code::FailedPrecondition, disabled),
                GcsCall::Describe,
                "destroyed",
                "versions enable",
            ),
            of(
                grpc(Code::FailedPrecondition, disabled),
                GcsCall::Delete,
                "destroyed",
                "versions enable",
            ),
            of(
                detailed(Code::FailedPrecondition, "x", violated),
                GcsCall::Create,
                "destroyed",
                "buckets describe gs://backups",
            ),
            of(
                json(400, "cloudKmsDecryptionKeyNotFound", "x"),
                GcsCall::Read,
                "not found",
                name,
            ),
            of(
                json(403, "forbidden", denied),
                GcsCall::Create,
                "Cloud Storage itself",
                "service-agent",
            ),
        ]);
        let csek = |e, what| {
            let asked = asked(GcsCall::Read, unset());
            let fix = "--clear-encryption-key --decryption-keys=KEY";
            (
                e,
                asked,
                R::ArchiveUnsupported,
                Blame::Infrastructure,
                what,
                fix,
            )
        };
        let supplied = "The target object is encrypted by a customer-supplied encryption key.";
        check(vec![
            csek(
                text(400, supplied),
                "customer-supplied key, which pgrestored",
            ),
            csek(
                json(
                    400,
                    "resourceIsEncryptedWithCustomerEncryptionKey",
                    supplied,
                ),
                supplied,
            ),
            csek(
                json(400, "customerEncryptionKeyIsIncorrect", "x"),
                "customer-supplied",
            ),
        ]);
    }

    #[test]
    fn what_is_retained_or_held_says_until_when_or_how_to_release_it() {
        let of = |e, what, fix| {
            let asked = asked(GcsCall::Delete, unset());
            (e, asked, R::AccessDenied, Blame::Infrastructure, what, fix)
        };
        let retained = "Object 'backups/nightly/app.dump' is subject to bucket's retention policy or object retention and \
            cannot be deleted or overwritten until 2026-12-30T15:58:01-07:00";
        let held = |kind: &str| {
            format!(
                "Object 'backups/nightly/app.dump' is under active {kind} hold and cannot be deleted, overwritten or \
                 archived until hold is removed."
            )
        };
        let until = "keeps it until 2026-12-30T22:58:01Z";
        check(vec![
            of(
                json(403, "retentionPolicyNotMet", retained),
                until,
                "BACKUP_RETENTION_DAYS",
            ),
            of(
                grpc(Code::PermissionDenied, retained),
                until,
                "BACKUP_RETENTION_DAYS",
            ),
            of(
                json(403, "retentionPolicyNotMet", "x"),
                "a retention policy keeps it (x)",
                "after that",
            ),
            // The service documents the reason `objectUnderActiveHold`, and sends `forbidden`.
            of(
                json(403, "forbidden", &held("Temporary")),
                "a hold keeps it",
                " --no-temporary-hold",
            ),
            of(
                grpc(Code::PermissionDenied, &held("Event-Based")),
                "a hold keeps it",
                "app.dump --no-event-based-hold",
            ),
            of(
                json(403, "objectUnderActiveHold", "x"),
                "a hold keeps it",
                "--no-temporary-hold --no-event-based-hold",
            ),
        ]);
        let e = json(403, "retentionPolicyNotMet", retained);
        let kind = error_of(e, &asked(GcsCall::Delete, unset())).kind();
        assert_eq!(kind, StorageKind::Retained);
    }

    #[test]
    fn what_is_gone_or_changed_depends_on_the_call() {
        let of = |e, call, reason, blame, what| (e, asked(call, unset()), reason, blame, what, "");
        let gone = "No such object: backups/nightly/app.dump";
        let no_bucket = "The specified bucket does not exist.";
        let condition = "At least one of the pre-conditions you specified did not hold.";
        let (request, backup) = (Blame::Request, Blame::Backup);
        check(vec![
            of(
                json(404, "notFound", gone),
                GcsCall::Describe,
                R::BackupNotFound,
                request,
                "no such object or bucket",
            ),
            of(
                grpc(Code::NotFound, gone),
                GcsCall::Delete,
                R::BackupNotFound,
                request,
                "no such object or bucket",
            ),
            of(
                grpc(Code::NotFound, no_bucket),
                GcsCall::List,
                R::BackupNotFound,
                request,
                "no such bucket",
            ),
            of(
                json(404, "notFound", no_bucket),
                GcsCall::Describe,
                R::BackupNotFound,
                request,
                "no such bucket",
            ),
            of(
                text(404, gone),
                GcsCall::Read,
                R::BackupChanged,
                backup,
                "generation",
            ),
            of(
                json(412, "conditionNotMet", condition),
                GcsCall::Create,
                R::BackupChanged,
                backup,
                condition,
            ),
            of(
                grpc(Code::FailedPrecondition, condition),
                GcsCall::Delete,
                R::BackupChanged,
                backup,
                condition,
            ),
            // Nothing was demanded that could have changed.
            of(
                grpc(Code::FailedPrecondition, "x"),
                GcsCall::List,
                R::DownloadFailed,
                Blame::Infrastructure,
                "FAILED_PRECONDITION",
            ),
            of(
                json(400, "invalid", "Bad name."),
                GcsCall::Describe,
                R::InvalidRequest,
                request,
                "(Bad name.)",
            ),
        ]);
    }

    #[test]
    fn a_service_that_is_busy_or_away_may_be_back() {
        let of = |e, what| {
            let asked = asked(GcsCall::Read, unset());
            (e, asked, R::DownloadFailed, Blame::Infrastructure, what, "")
        };
        let busy = || json(429, "rateLimitExceeded", "Too many requests.");
        let away = CredentialsError::from_msg(true, "no route to host");
        check(vec![
            of(busy(), "limits the rate of requests (Too many requests.)"),
            of(Error::exhausted(busy()), "limits the rate"),
            of(json(403, "rateLimitExceeded", "x"), "limits the rate"),
            of(grpc(Code::ResourceExhausted, "x"), "limits the rate"),
            of(text(503, "backendError"), "backendError"),
            of(grpc(Code::Unavailable, "try again"), "try again"),
            of(Error::authentication(away), "no route to host"),
            of(Error::timeout("too late"), "too late"),
        ]);
    }

    /// Whoever may add objects chooses their names, which the service's sentences repeat.
    #[test]
    fn the_name_of_an_object_means_nothing() {
        let mut asked = asked(GcsCall::Describe, unset());
        asked.name = "x is encrypted by a customer-supplied encryption key.dump".into();
        let e = format!(
            "worker does not have storage.objects.get access to backups/{}.",
            asked.name
        );
        let e = error_of(json(403, "forbidden", &e), &asked);
        assert_eq!(e.kind(), StorageKind::AccessDenied, "{e}");
        asked.name = "it's here.dump".into();
        let e = error_of(
            text(400, "is encrypted by a customer-supplied encryption key"),
            &asked,
        );
        assert!(
            e.to_string()
                .contains("cat 'gs://backups/it'\\''s here.dump' "),
            "{e}"
        );
    }
}
