//! What is kept of a verification, beside the backup: an in-toto statement in a DSSE envelope, signed
//! where there is a key, made once and never changed; and a page and a JUnit file of the same.
//! Anybody can check it: the envelope is JSON, the signature Ed25519 over DSSE's own encoding
//! (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>).

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{junit, page};
use crate::admission::der_of;
use crate::archive::BlockIndex;
use crate::error::{FailureReason as R, RestoreError, StorageError, ValidationError};
use crate::proof::{EVIDENCE_SUFFIX, ProofReport, is_ours};
use crate::store::{BackupStore, StoredObject, read_small};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://pgrestored.io/attestation/restore-proof/v1";
const ENVELOPE: &str = ".dsse.json";
/// Bytes of an envelope that is read.
const MAX_ENVELOPE: u64 = 256 << 20;
/// Of a public key in DER, what comes before its 32 bytes (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Where the evidence of one generation of a backup lies.
fn folder_of(backup: &str, generation: &str) -> String {
    format!("{}{EVIDENCE_SUFFIX}{generation}/", backup.trim_end_matches('/'))
}

/// The name of a request's evidence, without what its forms end with: every attempt has the same.
pub fn evidence_name(backup: &str, generation: &str, request_id: &str) -> String {
    format!("{}{}", folder_of(backup, generation), &sha256_hex(request_id.as_bytes())[..16])
}

/// What a verification learned about where things lie in an archive: with it, a restore of the same
/// generation starts knowing how much there is, and reads several blocks at the same time.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct RestoreIndex {
    /// Generation of the object; an int64 as a string.
    pub generation: String,
    /// Bytes; an int64 as a string.
    pub size: String,
    /// Base64 of the big-endian CRC32C of the object.
    pub crc32c: String,
    #[serde(flatten)]
    pub index: BlockIndex,
}

/// Bytes of an index that is read.
const MAX_INDEX: u64 = 256 << 20;

/// Who signed, and what.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Signature {
    /// SHA-256 of the public key in DER, in hexadecimal.
    pub keyid: String,
    /// Base64.
    pub sig: String,
}

/// A DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64 of the statement.
    pub payload: String,
    pub payload_type: String,
    /// Empty where the evidence is not signed.
    pub signatures: Vec<Signature>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct SubjectOf {
    name: String,
    digest: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<SubjectOf>,
    predicate_type: String,
    predicate: ProofReport,
}

/// What the signature is over: DSSE's pre-authentication encoding.
fn encoded(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// An Ed25519 key that signs evidence.
pub struct SigningKey(Ed25519KeyPair);

fn invalid(what: impl Into<String>) -> RestoreError {
    ValidationError::new(R::InvalidRequest, what).into()
}

fn key_id(public: &[u8]) -> String {
    sha256_hex(&[&SPKI_PREFIX[..], public].concat())
}

impl SigningKey {
    /// PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// `invalid_request`, without the key.
    pub fn from_pem(pem: &str) -> Result<Self, RestoreError> {
        let der = der_of(pem, "PRIVATE KEY");
        let pair = der.and_then(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok());
        let what = "EVIDENCE_SIGNING_KEY: must be an Ed25519 key, PKCS #8 in PEM (openssl genpkey -algorithm ed25519)";
        pair.map(SigningKey).ok_or_else(|| invalid(what))
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature {
            keyid: key_id(self.0.public_key().as_ref()),
            sig: STANDARD.encode(self.0.sign(message).as_ref()),
        }
    }
}

impl Envelope {
    /// # Errors
    /// `internal`, if the report cannot be written as JSON.
    pub fn seal(report: &ProofReport, key: Option<&SigningKey>) -> Result<Self, RestoreError> {
        let mut digest = std::collections::BTreeMap::new();
        digest.extend(report.backup.crc32c.clone().map(|c| ("crc32c".to_owned(), c)));
        digest.extend(report.sha256.clone().map(|c| ("sha256".to_owned(), c)));
        let name = match (&report.backup.uri, &report.backup.generation) {
            (Some(uri), Some(generation)) => format!("{uri}#{generation}"),
            (Some(uri), None) => uri.clone(),
            _ => "standard input".to_owned(),
        };
        let statement = Statement {
            kind: STATEMENT_TYPE.into(),
            subject: vec![SubjectOf { name, digest }],
            predicate_type: PREDICATE_TYPE.into(),
            predicate: report.clone(),
        };
        let payload = serde_json::to_vec(&statement).map_err(|e| RestoreError::internal(e.to_string()))?;
        let signatures = key.map(|k| k.sign(&encoded(PAYLOAD_TYPE, &payload))).into_iter().collect();
        Ok(Envelope { payload: STANDARD.encode(&payload), payload_type: PAYLOAD_TYPE.into(), signatures })
    }

    fn payload(&self) -> Result<Vec<u8>, RestoreError> {
        STANDARD.decode(&self.payload).map_err(|_| invalid("the evidence's payload is not base64"))
    }

    /// What it says, whether it is signed or not.
    ///
    /// # Errors
    /// `invalid_request` for what is no evidence.
    pub fn open(&self) -> Result<ProofReport, RestoreError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(invalid(format!("the evidence is of the type {}", self.payload_type)));
        }
        let statement: Statement = serde_json::from_slice(&self.payload()?)
            .map_err(|e| invalid(format!("the evidence cannot be read: {e}")))?;
        if statement.predicate_type != PREDICATE_TYPE {
            return Err(invalid(format!("the evidence is a {}", statement.predicate_type)));
        }
        Ok(statement.predicate)
    }
}

/// Checks the signature of an envelope with a public key in PEM, and opens it.
///
/// # Errors
/// `invalid_request` for what is no evidence or no key; `verification_failed` where the signature is
/// missing, another key's, or not over these bytes.
pub fn verify_envelope(envelope: &Envelope, public_pem: &str) -> Result<ProofReport, RestoreError> {
    let der = der_of(public_pem, "PUBLIC KEY");
    let public = der.as_deref().and_then(|d| d.strip_prefix(&SPKI_PREFIX[..])).filter(|k| k.len() == 32);
    let public = public.ok_or_else(|| invalid("the key must be an Ed25519 public key in PEM"))?;
    let failed = |what: &str| RestoreError::from(ValidationError::new(R::VerificationFailed, what));
    let id = key_id(public);
    let Some(signature) = envelope.signatures.iter().find(|s| s.keyid == id) else {
        return Err(failed(match envelope.signatures.is_empty() {
            true => "the evidence is not signed",
            false => "the evidence is signed with another key",
        }));
    };
    let bytes = STANDARD.decode(&signature.sig).map_err(|_| failed("the signature is not base64"))?;
    let message = encoded(&envelope.payload_type, &envelope.payload()?);
    UnparsedPublicKey::new(&ED25519, public)
        .verify(&message, &bytes)
        .map_err(|_| failed("the signature is not over this evidence: it was changed"))?;
    envelope.open()
}

/// The place where evidence is kept.
#[derive(Clone)]
pub struct Evidence {
    store: Arc<dyn BackupStore>,
}

impl Evidence {
    pub fn at(store: Arc<dyn BackupStore>) -> Self {
        Evidence { store }
    }

    /// Writes the evidence of a verification, once: where this request has evidence of this
    /// generation already, that one stands and is returned.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn write(
        &self,
        report: &ProofReport,
        key: Option<&SigningKey>,
    ) -> Result<ProofReport, RestoreError> {
        let (Some(backup), Some(generation)) = (&report.backup.name, &report.backup.generation) else {
            return Ok(report.clone());
        };
        let base = evidence_name(backup, generation, &report.request_id);
        let envelope = Envelope::seal(report, key)?;
        let json = serde_json::to_vec_pretty(&envelope).map_err(|e| RestoreError::internal(e.to_string()))?;
        let name = format!("{base}{ENVELOPE}");
        if self.store.create(&name, json.into(), "application/json").await?.is_none() {
            let there = self.store.stat(&name, None).await?;
            return self.read(&there).await;
        }
        let html = page(report, Some(&format!("{}{ENVELOPE}", base.rsplit('/').next().unwrap_or_default())));
        self.store.create(&format!("{base}.html"), html.into(), "text/html; charset=utf-8").await?;
        let xml = junit(report).map_err(RestoreError::internal)?;
        self.store.create(&format!("{base}.junit.xml"), xml.into(), "application/xml").await?;
        Ok(report.clone())
    }

    /// `gs://…` or `file://…` of a request's evidence.
    pub fn uri(&self, report: &ProofReport) -> Option<String> {
        let base = evidence_name(
            report.backup.name.as_deref()?,
            report.backup.generation.as_deref()?,
            &report.request_id,
        );
        Some(self.store.uri(&format!("{base}{ENVELOPE}")))
    }

    /// The recorded answer of a request about this generation.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn find(
        &self,
        backup: &str,
        generation: &str,
        request_id: &str,
    ) -> Result<Option<ProofReport>, RestoreError> {
        let name = format!("{}{ENVELOPE}", evidence_name(backup, generation, request_id));
        match self.store.stat(&name, None).await {
            Ok(object) => self.read(&object).await.map(Some),
            Err(e) if e.reason() == R::BackupNotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Keeps the index of an archive, once.
    ///
    /// # Errors
    /// The store's own.
    pub async fn write_index(&self, backup: &str, index: &RestoreIndex) -> Result<(), RestoreError> {
        let name = format!("{}index.json", folder_of(backup, &index.generation));
        let json = serde_json::to_vec(index).map_err(|e| RestoreError::internal(e.to_string()))?;
        self.store.create(&name, json.into(), "application/json").await?;
        Ok(())
    }

    /// The index of this generation of a backup, if it is known.
    ///
    /// # Errors
    /// `invalid_request` for what is no index, and the store's own.
    pub async fn index(&self, backup: &str, generation: &str) -> Result<Option<RestoreIndex>, RestoreError> {
        let name = format!("{}index.json", folder_of(backup, generation));
        let object = match self.store.stat(&name, None).await {
            Ok(object) => object,
            Err(e) if e.reason() == R::BackupNotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let bytes = read_small(self.store.as_ref(), &object, MAX_INDEX).await?;
        let index = serde_json::from_slice(&bytes);
        index.map(Some).map_err(|e| invalid(format!("{}: no restore index: {e}", self.store.uri(&name))))
    }

    async fn read(&self, object: &StoredObject) -> Result<ProofReport, RestoreError> {
        let bytes = read_small(self.store.as_ref(), object, MAX_ENVELOPE).await?;
        let envelope: Envelope = serde_json::from_slice(&bytes)
            .map_err(|e| invalid(format!("{}: no evidence: {e}", self.store.uri(&object.name))))?;
        envelope.open()
    }

    /// All envelopes below `prefix`, newest first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, StorageError> {
        let mut all = match self.store.members(prefix).await {
            Err(e) if e.reason() == R::BackupNotFound => vec![],
            other => other?,
        };
        all.retain(|o| is_ours(&o.name) && o.name.ends_with(ENVELOPE));
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.name.cmp(&a.name)));
        Ok(all)
    }

    /// Reports below `prefix` that `wanted` takes, newest first, at most `most`. What cannot be read
    /// is left out, with a warning.
    ///
    /// # Errors
    /// The store's own.
    pub async fn reports(
        &self,
        prefix: &str,
        most: usize,
        wanted: impl Fn(&ProofReport) -> bool,
    ) -> Result<Vec<ProofReport>, RestoreError> {
        let mut found = Vec::new();
        for object in self.list(prefix).await? {
            if found.len() >= most {
                break;
            }
            match self.read(&object).await {
                Ok(report) if wanted(&report) => found.push(report),
                Ok(_) => {}
                Err(e) => tracing::warn!(
                    name = object.name,
                    error = crate::error::report(&e),
                    "evidence cannot be read"
                ),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{ResultBackup, Verdict};
    use crate::policy::Depth;
    use crate::proof::Trigger;

    /// `openssl genpkey -algorithm ed25519`, and its `openssl pkey -pubout`.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDbVgGGVPP41q8bSdZVvrHEcxLMJgHhQfjK1NcvNr7gF\n-----END PRIVATE KEY-----\n";

    pub fn report(request_id: &str) -> ProofReport {
        let t = jiff::Timestamp::UNIX_EPOCH;
        let text = |t: &str| Some(t.to_owned());
        ProofReport {
            verdict: Verdict::Verified,
            depth: Some(Depth::Data),
            backup: ResultBackup {
                name: text("a/b.dump"),
                uri: text("gs://bucket/a/b.dump"),
                generation: text("17"),
                size: text("9"),
                crc32c: text("yZRlqg=="),
            },
            backup_created: Some(t),
            backup_set: "default".into(),
            ..ProofReport::new(request_id, Trigger::Command, Depth::Data, t)
        }
    }

    fn public_pem(key: &SigningKey) -> String {
        let der = [&SPKI_PREFIX[..], key.0.public_key().as_ref()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    #[test]
    fn a_signature_holds_for_its_own_bytes_and_key_alone() {
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        let sealed = Envelope::seal(&report("r"), Some(&key)).unwrap();
        let public = public_pem(&key);
        assert_eq!(verify_envelope(&sealed, &public).unwrap(), report("r"));
        let mut changed = sealed.clone();
        changed.payload = Envelope::seal(&report("s"), None).unwrap().payload;
        for (envelope, why) in
            [(&changed, "changed"), (&Envelope::seal(&report("r"), None).unwrap(), "not signed")]
        {
            let e = verify_envelope(envelope, &public).unwrap_err();
            assert_eq!(e.reason(), R::VerificationFailed);
            assert!(e.to_string().contains(why), "{e}");
        }
        let other = public.replace('A', "B");
        assert!(verify_envelope(&sealed, &other).is_err());
        assert!(
            SigningKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----").is_err()
        );
    }

    #[test]
    fn evidence_lies_beside_its_backup_under_a_name_of_its_own() {
        let name = evidence_name("a/b.dump", "17", "r1");
        assert!(name.starts_with("a/b.dump.pgrestored/17/") && is_ours(&name), "{name}");
        assert!(evidence_name("night/", "3", "r1").starts_with("night.pgrestored/3/"));
        assert_ne!(name, evidence_name("a/b.dump", "17", "r2"));
        assert!(!is_ours("a/b.dump"));
    }
}
