//! Backups in Cloud Storage, through Google's clients: metadata over gRPC, bytes over JSON/HTTP. The
//! clients' own resume and retry of reads are off; `backup` does both, with a stall timeout that the
//! clients lack.

use crate::job::Generation;
use pgdump_archive::Crc32c;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::options::RequestOptionsBuilder as _;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_gax::retry_policy::{NeverRetry, RetryPolicyExt as _};
use google_cloud_storage::client::{Storage, StorageControl};
use google_cloud_storage::model_ext::ReadRange;
use google_cloud_storage::read_resume_policy::NeverResume;
use google_cloud_storage::retry_policy::RetryableErrors;

use super::backup_store::{
    BackupStore, Listing, NameFilter, NewestObjects, ObjectBytes, StoredObject,
};
use crate::config::StorageEmulator;
use crate::error::{StorageError, StorageKind};

/// How long the clients retry one call.
const CALL_BUDGET: Duration = Duration::from_secs(60);

pub(super) struct GcsStore {
    control: StorageControl,
    data: Storage,
    bucket: String,
    prefix: String,
    is_emulated: bool,
}

impl GcsStore {
    pub async fn connect(
        bucket: &str,
        prefix: &str,
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
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            is_emulated: emulator.is_some(),
        })
    }

    fn resource(&self) -> String {
        format!("projects/_/buckets/{}", self.bucket)
    }

    fn fault(
        &self,
        e: google_cloud_gax::error::Error,
        what: &str,
        gone: StorageKind,
    ) -> StorageError {
        let kind = storage_kind(&e, gone);
        let place = format!("gs://{}/{}{what}", self.bucket, self.prefix);
        // The client's own words for it say no more.
        if kind == StorageKind::NotFound {
            return StorageError::new(kind, format!("{place}: no such object or bucket"));
        }
        StorageError::new(kind, place).with_source(e)
    }

    /// All pages of a listing.
    async fn list_into(
        &self,
        mut found: Listing,
        prefix: &str,
        wanted: NameFilter,
    ) -> Result<Listing, StorageError> {
        let full_prefix = format!("{}{prefix}", self.prefix);
        let mut pages = self
            .control
            .list_objects()
            .set_parent(self.resource())
            .set_prefix(full_prefix)
            .by_item();
        while let Some(object) = pages.next().await {
            let object =
                self.object(object.map_err(|e| self.fault(e, prefix, StorageKind::NotFound))?);
            if wanted(&object.name) {
                found.push(object)?;
            }
        }
        Ok(found)
    }

    fn object(&self, o: google_cloud_storage::model::Object) -> StoredObject {
        let created = o
            .create_time
            .and_then(|t| jiff::Timestamp::new(t.seconds(), t.nanos()).ok());
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

/// Maps Google's codes to a kind. `gone` is the kind for a missing object.
fn storage_kind(e: &google_cloud_gax::error::Error, gone: StorageKind) -> StorageKind {
    if e.is_authentication() {
        return StorageKind::AccessDenied;
    }
    match (e.status().map(|s| s.code), e.http_status_code()) {
        (Some(Code::NotFound), _) | (_, Some(404)) => gone,
        (Some(Code::FailedPrecondition), _) | (_, Some(412)) => StorageKind::Changed,
        (Some(Code::PermissionDenied | Code::Unauthenticated), _) | (_, Some(401 | 403)) => {
            StorageKind::AccessDenied
        }
        (Some(Code::InvalidArgument), _) | (_, Some(400)) => StorageKind::CallRejected,
        _ => StorageKind::DownloadFailed,
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
            match ask.send().await {
                // The call that needs it reports everything else.
                Err(e)
                    if storage_kind(&e, StorageKind::NotFound) == StorageKind::DownloadFailed =>
                {
                    Err(self.fault(e, "", StorageKind::NotFound))
                }
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
            let answer = ask.send().await.map(drop);
            answer.map_err(|e| self.fault(e, "", StorageKind::NotFound))
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
            let object = get
                .send()
                .await
                .map_err(|e| self.fault(e, name, StorageKind::NotFound))?;
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
            let response = read
                .send()
                .await
                .map_err(|e| self.fault(e, &object.name, StorageKind::Changed))?;
            let uri = self.uri(&object.name);
            let stream =
                futures::stream::unfold(
                    response,
                    |mut r| async move { r.next().await.map(|c| (c, r)) },
                );
            let stream = stream.map(move |chunk| {
                chunk.map_err(|e| {
                    StorageError::new(storage_kind(&e, StorageKind::Changed), uri.clone())
                        .with_source(e)
                })
            });
            Ok(stream.boxed())
        })
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        content: Bytes,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        Box::pin(async move {
            let full = format!("{}{name}", self.prefix);
            let written = self
                .data
                .write_object(self.resource(), full, content)
                .set_if_generation_match(0_i64)
                .set_content_type(content_type)
                .send_unbuffered()
                .await;
            match written {
                Ok(object) => Ok(Some(self.object(object))),
                // This may also be a retry of an attempt that succeeded but whose answer was lost.
                Err(e) if storage_kind(&e, StorageKind::NotFound) == StorageKind::Changed => {
                    Ok(None)
                }
                Err(e) => Err(self.fault(e, name, StorageKind::NotFound)),
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
            delete
                .send()
                .await
                .map_err(|e| self.fault(e, &object.name, StorageKind::NotFound))
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
                .set_resource(self.resource());
            match ask.set_permissions(wanted.iter().copied()).send().await {
                Ok(answer) => Ok(Some(answer.permissions)),
                Err(e) if e.status().is_some_and(|s| s.code == Code::Unimplemented) => Ok(None),
                Err(e) => Err(self.fault(e, "", StorageKind::NotFound)),
            }
        })
    }

    fn uri(&self, name: &str) -> String {
        format!("gs://{}/{}{name}", self.bucket, self.prefix)
    }
}
