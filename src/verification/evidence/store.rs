//! The store of evidence: documents are created once and never changed.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::envelope::{Keyring, MAX_ENVELOPE, invalid};
use super::super::html_report::{DocumentLink, page};
use super::super::junit;
use super::super::own_evidence::OwnEvidence;
use super::super::restore_index::RestoreIndex;
use super::limits::EvidenceLimits;
use super::names::{ENVELOPE, Question, SecretNames, evidence_name, folder_of, is_document};
use super::times::{check_clock, rejected_document};
use crate::error::{FailureReason as R, RestoreError, RetryClass, report as describe_error};
use crate::proof::{EvidenceRef, VerificationReport};
use crate::store::{
    BackupStore, StoredObject, can_read_another, create_small, create_unless_taken, read_range,
    read_small,
};

/// Largest index that is written or read, in bytes: some 250,000 blocks. Larger archives are read sequentially.
const MAX_INDEX: u64 = 32 << 20;

/// A report and its document.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvidence {
    pub report: VerificationReport,
    pub document: EvidenceRef,
}

/// The store of evidence.
#[derive(Clone)]
pub struct Evidence {
    pub(super) store: Arc<dyn BackupStore>,
    /// The store of the backups that the evidence is about.
    pub(super) backups: Arc<dyn BackupStore>,
    pub(super) keys: Arc<Keyring>,
    pub(super) own: Arc<OwnEvidence>,
    pub(super) limits: EvidenceLimits,
}

impl Evidence {
    pub fn new(
        store: Arc<dyn BackupStore>,
        backups: Arc<dyn BackupStore>,
        keys: Arc<Keyring>,
        own: Arc<OwnEvidence>,
        limits: EvidenceLimits,
    ) -> Self {
        Evidence {
            store,
            backups,
            keys,
            own,
            limits,
        }
    }

    /// Whether every document that counts has a name that only holders of the signing key can compute. Documents
    /// that are signed with another trusted key do not.
    pub fn has_own_names(&self) -> bool {
        self.keys.trusts_itself_alone()
    }

    /// `gs://…` or `file://…` of a place where evidence is kept.
    pub fn uri(&self, name: &str) -> String {
        self.store.uri(name)
    }

    /// Whether documents must be signed to count.
    pub fn is_signed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The names under which the answer to a question is written, in the order in which they are tried until one is free.
    /// Nobody without the signing key can predict any of them; without a key, only the first can be predicted.
    pub(super) fn names(&self, question: &Question<'_>) -> [String; 4] {
        let base = question.base();
        let name = |second: &str| format!("{base}-{second}{ENVELOPE}");
        match SecretNames::of(&self.keys, &base) {
            Some(names) => names.for_question(question).map(|second| name(&second)),
            None => {
                let further = || name(&uuid::Uuid::new_v4().simple().to_string()[..16]);
                [format!("{base}{ENVELOPE}"), further(), further(), further()]
            }
        }
    }

    /// Writes the evidence of a verification. If the question already has an answer, that one stands and is
    /// returned. Foreign documents under the same name are left unchanged.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`; `internal` if all names are taken.
    pub async fn write(
        &self,
        question: &Question<'_>,
        report: &VerificationReport,
    ) -> Result<StoredEvidence, RestoreError> {
        let envelope = self.keys.seal(report)?;
        let report = &envelope.open()?;
        let json = serde_json::to_vec_pretty(&envelope)
            .map_err(|e| RestoreError::internal(e.to_string()))?;
        let names = self.names(question);
        for name in &names {
            // Before it is written, because the answer to an attempt that succeeds may be lost.
            self.own.remember(question.key(), name, &json);
            let (store, content) = (self.store.as_ref(), json.clone().into());
            let made = create_unless_taken(store, name, content, "application/json").await?;
            if made.is_some() {
                let document = EvidenceRef {
                    uri: self.store.uri(name),
                    signed_by: envelope.key_id(),
                };
                self.write_renderings(name, report, document.signed_by.as_deref())
                    .await;
                return Ok(StoredEvidence {
                    report: report.clone(),
                    document,
                });
            }
            if let Some(there) = self.answer_at(question, name).await? {
                return Ok(there);
            }
        }
        let at = self.store.uri(&question.base());
        let mut denied = false;
        for name in &names {
            denied |= self.is_denied(name).await;
        }
        let what = if denied {
            "objects occupy all names of the evidence, and this account may not read them all, although it reads other evidence: let the account read them; delete one only if no worker of yours wrote it"
        } else {
            "foreign objects occupy all names of the evidence: delete them, and check who may create objects there"
        };
        Err(RestoreError::internal(format!("{at}: {what}")))
    }

    /// Whether this account may not read an object.
    async fn is_denied(&self, name: &str) -> bool {
        let store = self.store.as_ref();
        let read = async { read_range(store, &store.stat(name, None).await?, 0..1).await };
        read.await.is_err_and(|e| e.reason() == R::AccessDenied)
    }

    /// Writes the HTML page and the JUnit file next to a document. They prove nothing themselves, so that no error here
    /// keeps the answer from being given: whoever may add objects can take their names.
    async fn write_renderings(
        &self,
        name: &str,
        report: &VerificationReport,
        signed_by: Option<&str>,
    ) {
        let base = name.trim_end_matches(ENVELOPE);
        let file = name.rsplit('/').next().unwrap_or_default();
        let link = DocumentLink {
            name: file,
            is_link: true,
            signed_by,
        };
        let html = Ok(page(report, Some(link)));
        let xml = junit(report);
        for (ending, text, kind) in [
            ("html", html, "text/html; charset=utf-8"),
            ("junit.xml", xml, "application/xml"),
        ] {
            let name = format!("{base}.{ending}");
            let written = match text {
                Ok(text) => self.write_rendering(&name, text.into(), kind).await,
                Err(e) => Err(RestoreError::internal(e)),
            };
            if let Err(e) = written {
                let name = self.store.uri(&name);
                tracing::error!(
                    name,
                    error = describe_error(&e),
                    "a page of the evidence was not written"
                );
            }
        }
    }

    async fn write_rendering(
        &self,
        name: &str,
        content: bytes::Bytes,
        kind: &str,
    ) -> Result<(), RestoreError> {
        let store = self.store.as_ref();
        let made = create_unless_taken(store, name, content.clone(), kind).await?;
        if made.is_none() && !self.holds(name, &content).await {
            tracing::error!(
                name = self.store.uri(name),
                "the object exists already, and this worker did not write it: do not trust it"
            );
        }
        Ok(())
    }

    /// Whether an object has exactly these bytes: then this worker wrote it, and the answer to that was lost.
    pub(super) async fn holds(&self, name: &str, bytes: &[u8]) -> bool {
        let store = self.store.as_ref();
        match store.stat(name, None).await {
            Ok(object) if object.size == bytes.len() as u64 => {
                let stored = read_small(store, &object, object.size).await;
                stored.is_ok_and(|stored| stored == bytes)
            }
            _ => false,
        }
    }

    /// The recorded answer to a question: with a key, a signed document; without one, only a document that this
    /// process wrote itself. If there are several, the newest.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn find(
        &self,
        question: &Question<'_>,
    ) -> Result<Option<StoredEvidence>, RestoreError> {
        // The name that workers without this key use.
        let mut names = vec![format!("{}{ENVELOPE}", question.base())];
        if self.keys.signs() {
            names.extend(self.names(question));
            let older = self.keys.secret_name(&question.key());
            names.extend(older.map(|second| format!("{}-{second}{ENVELOPE}", question.base())));
        }
        let own = self.own.of(&question.key()).map(|(name, _)| name);
        let own = own.filter(|own| !names.contains(own));
        names.extend(own);
        let looks = names
            .iter()
            .map(|name| self.answer_at(question, name).boxed());
        let looks: Vec<BoxFuture<'_, _>> = looks.collect();
        let mut newest: Option<StoredEvidence> = None;
        for there in futures::future::join_all(looks).await {
            newest = newest
                .into_iter()
                .chain(there?)
                .max_by_key(|there| there.report.finished_at);
        }
        Ok(newest)
    }

    /// The answer to a question, if the object of this name contains it and can be trusted.
    async fn answer_at(
        &self,
        question: &Question<'_>,
        name: &str,
    ) -> Result<Option<StoredEvidence>, RestoreError> {
        let own = self.own.of(&question.key()).filter(|(own, _)| own == name);
        if self.keys.is_empty() && own.is_none() {
            return Ok(None);
        }
        let object = match self.store.stat(name, None).await {
            Ok(object) => object,
            Err(e) if e.reason() == R::BackupNotFound => return Ok(None),
            Err(e) => return self.unless_of_object(question, name, e.into()).await,
        };
        let uri = self.store.uri(name);
        match self
            .read(&object, own.map(|(_, sha256)| sha256).as_deref())
            .await
        {
            Ok((report, signed_by)) if question.is_answered_by(&report) => {
                let document = EvidenceRef { uri, signed_by };
                Ok(Some(StoredEvidence { report, document }))
            }
            Ok(_) => {
                tracing::info!(name = uri, "this evidence is about another verification");
                Ok(None)
            }
            Err(e) if object.size > MAX_ENVELOPE => {
                tracing::error!(name = uri, error = describe_error(&e), "evidence rejected");
                Ok(None)
            }
            Err(e) => self.unless_of_object(question, name, e).await,
        }
    }

    /// No answer, if the error is about this document alone: whoever may add objects can cause that. What is denied is
    /// denied alone if others can be read. Only workers can have chosen a name that cannot be predicted, and backups that
    /// can be read say nothing of evidence.
    async fn unless_of_object(
        &self,
        question: &Question<'_>,
        name: &str,
        e: RestoreError,
    ) -> Result<Option<StoredEvidence>, RestoreError> {
        let is_predictable = *name == format!("{}{ENVELOPE}", question.base());
        let like: fn(&str) -> bool = if is_predictable {
            |_| true
        } else {
            is_document
        };
        let store = self.store.as_ref();
        let is_of_object = match e.reason().retry_class() {
            RetryClass::Permanent => true,
            RetryClass::Environment => can_read_another(store, name, like).await,
            RetryClass::Transient | RetryClass::Busy | RetryClass::Interrupted => false,
        };
        if !is_of_object {
            return Err(e);
        }
        let uri = self.store.uri(name);
        tracing::error!(name = uri, error = describe_error(&e), "evidence rejected");
        Ok(None)
    }

    /// Stores the index of an archive unless there is one already.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn write_index(
        &self,
        backup: &str,
        index: &RestoreIndex,
    ) -> Result<(), RestoreError> {
        let name = format!("{}index.json", folder_of(backup, &index.generation));
        let json = serde_json::to_vec(index).map_err(|e| RestoreError::internal(e.to_string()))?;
        if json.len() as u64 > MAX_INDEX {
            return Ok(());
        }
        create_small(self.store.as_ref(), &name, json.into(), "application/json").await?;
        Ok(())
    }

    /// The stored index of this generation of a backup, if there is one.
    ///
    /// # Errors
    /// `invalid_request` if it cannot be parsed, and errors of the store.
    pub async fn index(
        &self,
        backup: &str,
        generation: &str,
    ) -> Result<Option<RestoreIndex>, RestoreError> {
        let name = format!("{}index.json", folder_of(backup, generation));
        let object = match self.store.stat(&name, None).await {
            Ok(object) => object,
            Err(e) if e.reason() == R::BackupNotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let bytes = read_small(self.store.as_ref(), &object, MAX_INDEX).await?;
        let index = serde_json::from_slice(&bytes);
        index.map(Some).map_err(|e| {
            invalid(format!(
                "{}: not a restore index: {e}",
                self.store.uri(&name)
            ))
        })
    }

    /// The report in a document and the id of the key that signed it, if the document counts: signed if that is
    /// required, at the right location, and with plausible times. `own` is the SHA-256 of what this process wrote there, which needs no signature.
    async fn read(
        &self,
        object: &StoredObject,
        own: Option<&str>,
    ) -> Result<(VerificationReport, Option<String>), RestoreError> {
        let read = self.read_document(object, own).await?;
        check_clock(&read.report, jiff::Timestamp::now())?;
        if self.is_about_our_store(&read.report) {
            Ok((read.report, read.signed_by))
        } else {
            Err(rejected_document(
                "the document is about a backup in another place",
            ))
        }
    }

    /// Whether a document is about a backup in this store. Evidence of several places may lie in one.
    pub(super) fn is_about_our_store(&self, report: &VerificationReport) -> bool {
        let name = report.backup.name.as_deref();
        name.is_some_and(|name| report.backup.uri == Some(self.backups.uri(name)))
    }

    /// Checks that a document is next to the backup and generation that it is about, under its request's name.
    pub(super) fn check_place(
        &self,
        report: &VerificationReport,
        object: &StoredObject,
    ) -> Result<(), RestoreError> {
        let misplaced = || {
            rejected_document(
                "the document is about another backup or request than its location says",
            )
        };
        let (name, generation) = report.subject().ok_or_else(misplaced)?;
        let base = evidence_name(name, generation, &report.request_id);
        let rest = object.name.strip_prefix(&base);
        let fits = rest
            .is_some_and(|r| r == ENVELOPE || (r.starts_with('-') && is_document(&object.name)));
        if fits { Ok(()) } else { Err(misplaced()) }
    }
}
