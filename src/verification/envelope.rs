//! The format of evidence: an in-toto statement in a DSSE envelope, signed with Ed25519 over DSSE's
//! pre-authentication encoding (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>); and the
//! trusted keys.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::admission::der_of;
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::proof::{CheckStatus, TABLES_LEFT_OUT, VerificationReport};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://pgrestored.io/attestation/restore-proof/v1";
/// Largest envelope that is written or read, in bytes: some 18,000 tables, or 2,000 with twenty columns each.
/// A longer report is shortened when it is written, and a note says so. A verification holds up to ten
/// envelopes in memory.
pub(super) const MAX_ENVELOPE: u64 = 4 << 20;
/// Largest statement before base64, leaving 64 KiB of the envelope for everything else.
const MAX_STATEMENT: usize = (MAX_ENVELOPE as usize - (64 << 10)) / 4 * 3;
/// How many signatures of an envelope are tried.
const MAX_SIGNATURES: usize = 16;
/// How many checks and notes are kept if a report is too long.
const MAX_ENTRIES: usize = 500;
/// The prefix of an Ed25519 public key in DER, before its 32 bytes (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// The first 16 digits of the SHA-256 of a text.
pub(super) fn short_digest(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes())
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect()
}

pub(super) fn invalid(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

fn untrusted(what: &str) -> RestoreError {
    ValidationError::new(ValidationKind::VerificationFailed, what).into()
}

fn key_id(public: &[u8]) -> String {
    sha256_hex(&[&SPKI_PREFIX[..], public].concat())
}

/// A signature and the id of its key.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Signature {
    /// SHA-256 of the public key in DER, in hexadecimal.
    pub keyid: String,
    /// Base64.
    pub sig: String,
}

/// A DSSE envelope.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64 of the statement.
    pub payload: String,
    pub payload_type: String,
    /// Empty if the evidence is not signed.
    pub signatures: Vec<Signature>,
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct SubjectOf {
    name: String,
    digest: BTreeMap<String, String>,
}

impl SubjectOf {
    fn of(report: &VerificationReport) -> Self {
        let mut digest = BTreeMap::new();
        digest.extend(
            report
                .backup
                .crc32c
                .clone()
                .map(|c| ("crc32c".to_owned(), c)),
        );
        digest.extend(report.sha256.clone().map(|c| ("sha256".to_owned(), c)));
        let name = match (&report.backup.uri, &report.backup.generation) {
            (Some(uri), Some(generation)) => format!("{uri}#{generation}"),
            (Some(uri), None) => uri.clone(),
            _ => "standard input".to_owned(),
        };
        SubjectOf { name, digest }
    }
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct InTotoStatement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<SubjectOf>,
    predicate_type: String,
    predicate: VerificationReport,
}

impl InTotoStatement {
    fn of(report: VerificationReport) -> Self {
        InTotoStatement {
            kind: STATEMENT_TYPE.into(),
            subject: vec![SubjectOf::of(&report)],
            predicate_type: PREDICATE_TYPE.into(),
            predicate: report,
        }
    }

    fn json(report: VerificationReport) -> Result<Vec<u8>, RestoreError> {
        serde_json::to_vec(&InTotoStatement::of(report))
            .map_err(|e| RestoreError::internal(e.to_string()))
    }
}

/// The bytes that are signed: DSSE's pre-authentication encoding.
fn encoded(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    out.extend_from_slice(payload);
    out
}

/// An Ed25519 key that signs evidence.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Parses PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// `invalid_request`; the message does not contain the key.
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

/// The key that signs evidence, and the keys whose signatures are trusted.
#[derive(Default)]
pub struct Keyring {
    signing: Option<SigningKey>,
    /// Ed25519 public keys.
    trusted: Vec<Vec<u8>>,
}

impl Keyring {
    /// `signing` is a private key, `trusted` are concatenated public keys, all in PEM. The signing key itself is
    /// always trusted.
    ///
    /// # Errors
    /// `invalid_request`; the message does not contain any key.
    pub fn new(signing: Option<&str>, trusted: Option<&str>) -> Result<Self, RestoreError> {
        let signing = signing.map(SigningKey::from_pem).transpose()?;
        let mut keys: Vec<Vec<u8>> = signing
            .iter()
            .map(|k| k.0.public_key().as_ref().to_vec())
            .collect();
        if let Some(pem) = trusted {
            let what =
                "EVIDENCE_TRUSTED_KEYS: must be Ed25519 public keys in PEM (openssl pkey -pubout)";
            let blocks: Vec<&str> = pem.split_inclusive("-----END PUBLIC KEY-----").collect();
            let of_block = |block: &&str| public_key(block).ok_or_else(|| invalid(what));
            let is_empty = |block: &&&str| block.trim().is_empty();
            let more: Vec<_> = blocks
                .iter()
                .filter(|b| !is_empty(b))
                .map(of_block)
                .collect::<Result<_, _>>()?;
            if more.is_empty() {
                return Err(invalid(what));
            }
            keys.extend(more);
        }
        Ok(Keyring {
            signing,
            trusted: keys,
        })
    }

    /// Whether there is no trusted key: then signatures are not required, and genuine evidence cannot be
    /// distinguished from documents that somebody else wrote.
    pub fn is_empty(&self) -> bool {
        self.trusted.is_empty()
    }

    pub fn signs(&self) -> bool {
        self.signing.is_some()
    }

    /// Whether only documents signed with this keyring's own key count.
    pub(super) fn trusts_itself_alone(&self) -> bool {
        let own = self.signing.as_ref().map(|k| k.0.public_key().as_ref());
        own.is_some_and(|own| self.trusted.iter().all(|k| k == own))
    }

    /// A text that only holders of the signing key can compute, from which names are made. `None` without one.
    pub(super) fn secret_of(&self, of: &str) -> Option<String> {
        // Cannot be confused with a signed document: DSSE's encoding begins with `DSSEv1`.
        let message = format!("pgrestored evidence name\n{of}");
        self.signing
            .as_ref()
            .map(|k| k.sign(message.as_bytes()).sig)
    }

    /// A name that only holders of the signing key can compute. `None` without one.
    pub(crate) fn secret_name(&self, of: &str) -> Option<String> {
        self.secret_of(of).map(|secret| short_digest(&secret))
    }

    /// Wraps a report in an envelope, signed if there is a signing key.
    ///
    /// # Errors
    /// `internal`, if the report cannot be written as JSON.
    pub fn seal(&self, report: &VerificationReport) -> Result<Envelope, RestoreError> {
        Envelope::seal(report, self.signing.as_ref())
    }

    /// Signs a text other than evidence, as one of the type `kind`. `None` without a key.
    pub fn sign(&self, kind: &str, text: &[u8]) -> Option<Signature> {
        self.signing.as_ref().map(|k| k.sign(&encoded(kind, text)))
    }

    /// Whether a trusted key signed this text as one of the type `kind`.
    pub fn has_signed(&self, kind: &str, text: &[u8], signature: &Signature) -> bool {
        let key = self.trusted.iter().find(|k| key_id(k) == signature.keyid);
        let bytes = STANDARD.decode(&signature.sig).unwrap_or_default();
        key.is_some_and(|k| {
            UnparsedPublicKey::new(&ED25519, k)
                .verify(&encoded(kind, text), &bytes)
                .is_ok()
        })
    }

    /// Opens an envelope, checking its signature if there are trusted keys. Returns the report and the id of the trusted
    /// key that signed it.
    ///
    /// # Errors
    /// `invalid_request` if it is not evidence; `verification_failed` if the signature is missing, made with
    /// another key, or not over these bytes.
    pub fn open(
        &self,
        envelope: &Envelope,
    ) -> Result<(VerificationReport, Option<String>), RestoreError> {
        let signed_by = if self.is_empty() {
            None
        } else {
            Some(check(envelope, &self.trusted)?)
        };
        Ok((envelope.open()?, signed_by))
    }
}

fn public_key(pem: &str) -> Option<Vec<u8>> {
    let der = der_of(pem, "PUBLIC KEY")?;
    der.strip_prefix(&SPKI_PREFIX[..])
        .filter(|k| k.len() == 32)
        .map(<[u8]>::to_vec)
}

/// Checks that one of `keys` signed the envelope, and returns the id of that key.
fn check(envelope: &Envelope, keys: &[Vec<u8>]) -> Result<String, RestoreError> {
    if envelope.signatures.is_empty() {
        return Err(untrusted("the evidence is not signed"));
    }
    let message = encoded(&envelope.payload_type, &envelope.payload()?);
    let mut why = "the evidence is not signed with a trusted key";
    for signature in envelope.signatures.iter().take(MAX_SIGNATURES) {
        let Some(key) = keys.iter().find(|k| key_id(k) == signature.keyid) else {
            continue;
        };
        let bytes = STANDARD.decode(&signature.sig).unwrap_or_default();
        match UnparsedPublicKey::new(&ED25519, key).verify(&message, &bytes) {
            Ok(()) => return Ok(signature.keyid.clone()),
            Err(_) => {
                why = "the signature does not match: the evidence was changed after it was signed";
            }
        }
    }
    Err(untrusted(why))
}

impl Envelope {
    /// Wraps a report in an envelope, signed if there is a `key`.
    ///
    /// # Errors
    /// `internal`, if the report cannot be written as JSON.
    pub fn seal(
        report: &VerificationReport,
        key: Option<&SigningKey>,
    ) -> Result<Self, RestoreError> {
        let payload = InTotoStatement::json(within_bounds(report)?)?;
        let signatures = key
            .map(|k| k.sign(&encoded(PAYLOAD_TYPE, &payload)))
            .into_iter()
            .collect();
        Ok(Envelope {
            payload: STANDARD.encode(&payload),
            payload_type: PAYLOAD_TYPE.into(),
            signatures,
        })
    }

    fn payload(&self) -> Result<Vec<u8>, RestoreError> {
        STANDARD
            .decode(&self.payload)
            .map_err(|_| invalid("the evidence's payload is not base64"))
    }

    /// SHA-256 of the payload, which is the same in every copy of a signed document.
    pub(super) fn digest(&self) -> Result<String, RestoreError> {
        Ok(sha256_hex(&self.payload()?))
    }

    /// Id of the key of the first signature; `None` if there is no signature. The signature is not checked.
    pub(super) fn key_id(&self) -> Option<String> {
        self.signatures.first().map(|s| s.keyid.clone())
    }

    /// Returns the report without checking the signature.
    ///
    /// # Errors
    /// `invalid_request` if it is not evidence, or if its subject and its predicate are about different backups.
    pub fn open(&self) -> Result<VerificationReport, RestoreError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(invalid(format!(
                "not evidence of pgrestored: the payload type is {}",
                self.payload_type
            )));
        }
        let statement: InTotoStatement = serde_json::from_slice(&self.payload()?)
            .map_err(|e| invalid(format!("the evidence cannot be parsed: {e}")))?;
        if statement.kind != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
            return Err(invalid(format!(
                "not evidence of pgrestored: the predicate type is {}",
                statement.predicate_type
            )));
        }
        if statement.subject != [SubjectOf::of(&statement.predicate)] {
            return Err(invalid(
                "the subject of the evidence and its predicate are about different backups",
            ));
        }
        Ok(statement.predicate)
    }
}

/// Checks the signature of an envelope with a public key in PEM, and opens it.
///
/// # Errors
/// `invalid_request` if the envelope is not evidence or the key is invalid; `verification_failed` if the
/// signature is missing, made with another key, or not over these bytes.
pub fn verify_envelope(
    envelope: &Envelope,
    public_pem: &str,
) -> Result<VerificationReport, RestoreError> {
    let key = public_key(public_pem);
    let key = key.ok_or_else(|| invalid("the key must be an Ed25519 public key in PEM"))?;
    check(envelope, &[key])?;
    envelope.open()
}

/// Shortens a report until its document is within the limit: drops columns first, then passed checks and notes,
/// then the smallest tables, then whatever else there are many of.
fn within_bounds(report: &VerificationReport) -> Result<VerificationReport, RestoreError> {
    let mut r = report.clone();
    let fits = |r: &VerificationReport| {
        Ok::<_, RestoreError>(InTotoStatement::json(r.clone())?.len() <= MAX_STATEMENT)
    };
    if fits(&r)? {
        return Ok(r);
    }
    r.tables.iter_mut().for_each(|t| t.columns.clear());
    r.notes.push(
        "the report is too long for its document: the columns of the tables are left out".into(),
    );
    if fits(&r)? {
        return Ok(r);
    }
    r.checks.sort_by_key(|c| c.status == CheckStatus::Passed);
    r.checks.truncate(MAX_ENTRIES);
    let about = r.notes.pop();
    r.notes.truncate(MAX_ENTRIES);
    r.notes.extend(about);
    r.tables.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    let all = r.tables.len();
    while !fits(&r)? && !r.tables.is_empty() {
        r.tables.truncate(r.tables.len() / 2);
    }
    if r.tables.len() < all {
        r.tables_left_out = (all - r.tables.len()) as u64;
        r.notes.push(format!(
            "{TABLES_LEFT_OUT}{} largest of {all} tables are included",
            r.tables.len()
        ));
    }
    let mut is_shortened = false;
    while !fits(&r)? && halve_lists(&mut r) {
        is_shortened = true;
    }
    if is_shortened {
        r.notes.push(
            "the report is too long for its document: checks, notes, findings and kinds of entries are left out"
                .into(),
        );
    }
    r.tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(r)
}

/// Keeps the first half of each list of a report that has long texts; whether there was anything left.
fn halve_lists(r: &mut VerificationReport) -> bool {
    fn halve<T>(list: &mut Vec<T>) -> bool {
        let had_any = !list.is_empty();
        list.truncate(list.len() / 2);
        had_any
    }
    // An archive may name any number of kinds.
    let kinds = r.archive.as_mut().map(|a| &mut a.entries);
    let had_kinds = kinds.is_some_and(|kinds| {
        let middle = kinds.keys().nth(kinds.len() / 2).cloned();
        middle.is_some_and(|m| !kinds.split_off(&m).is_empty())
    });
    let findings = r.drift.as_mut().map(|d| &mut d.findings);
    let had_probed = r.bisection.as_mut().is_some_and(|b| {
        let had_probes = halve(&mut b.probes);
        halve(&mut b.left_out) || had_probes
    });
    [
        halve(&mut r.checks),
        halve(&mut r.notes),
        halve(&mut r.rewrites),
        had_kinds,
        findings.is_some_and(halve),
        had_probed,
    ]
    .contains(&true)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::FailureReason as R;
    use crate::proof::{ColumnProof, TableProof};
    use crate::verification::evidence::tests::report;

    /// `openssl genpkey -algorithm ed25519`, and its `openssl pkey -pubout`.
    pub const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDbVgGGVPP41q8bSdZVvrHEcxLMJgHhQfjK1NcvNr7gF\n-----END PRIVATE KEY-----\n";

    pub const OTHER_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";

    pub fn public_pem(private: &str) -> String {
        let key = SigningKey::from_pem(private).unwrap();
        let der = [&SPKI_PREFIX[..], key.0.public_key().as_ref()].concat();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    }

    /// A signed document whose subject and predicate are about different backups.
    pub fn mixed(predicate: &VerificationReport, subject: &VerificationReport) -> Vec<u8> {
        let statement = InTotoStatement {
            subject: vec![SubjectOf::of(subject)],
            ..InTotoStatement::of(predicate.clone())
        };
        let payload = serde_json::to_vec(&statement).unwrap();
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        let signatures = vec![key.sign(&encoded(PAYLOAD_TYPE, &payload))];
        let payload_type = PAYLOAD_TYPE.to_owned();
        serde_json::to_vec(&Envelope {
            payload: STANDARD.encode(&payload),
            payload_type,
            signatures,
        })
        .unwrap()
    }

    #[test]
    fn a_signature_is_valid_only_for_its_own_bytes_and_key() {
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        let sealed = Envelope::seal(&report("r"), Some(&key)).unwrap();
        let public = public_pem(PRIVATE);
        assert_eq!(verify_envelope(&sealed, &public).unwrap(), report("r"));
        let mut changed = sealed.clone();
        changed.payload = Envelope::seal(&report("s"), None).unwrap().payload;
        for (envelope, why) in [
            (&changed, "changed"),
            (&Envelope::seal(&report("r"), None).unwrap(), "not signed"),
        ] {
            let e = verify_envelope(envelope, &public).unwrap_err();
            assert_eq!(e.reason(), R::VerificationFailed);
            assert!(e.to_string().contains(why), "{e}");
        }
        let other = public.replace('A', "B");
        assert!(verify_envelope(&sealed, &other).is_err());
        assert!(
            SigningKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")
                .is_err()
        );
    }

    #[test]
    fn several_keys_may_be_trusted_and_an_empty_list_is_rejected() {
        let both = public_pem(PRIVATE) + "\n" + &public_pem(OTHER_PRIVATE);
        for (signing, trusted, by, opens) in [
            (None, None, None, true),
            (None, Some(&both), Some(PRIVATE), true),
            (None, Some(&both), Some(OTHER_PRIVATE), true),
            (None, Some(&both), None, false),
            (Some(PRIVATE), None, Some(PRIVATE), true),
            (Some(PRIVATE), None, Some(OTHER_PRIVATE), false),
            (Some(PRIVATE), None, None, false),
            (Some(PRIVATE), Some(&both), Some(OTHER_PRIVATE), true),
        ] {
            let sealed = Keyring::new(by, None).unwrap().seal(&report("r")).unwrap();
            let keys = Keyring::new(signing, trusted.map(String::as_str)).unwrap();
            assert_eq!(
                keys.open(&sealed).is_ok(),
                opens,
                "{signing:?} {trusted:?} {by:?}"
            );
        }
        // One valid signature among others is enough, within the number that is tried.
        let mut sealed = Keyring::new(Some(PRIVATE), None)
            .unwrap()
            .seal(&report("r"))
            .unwrap();
        let good = sealed.signatures[0].clone();
        sealed.signatures.insert(
            0,
            Signature {
                sig: "AAAA".into(),
                ..good.clone()
            },
        );
        let keys = Keyring::new(Some(PRIVATE), None).unwrap();
        assert!(keys.open(&sealed).is_ok());
        sealed.signatures = vec![sealed.signatures[0].clone(); MAX_SIGNATURES];
        sealed.signatures.push(good);
        assert!(keys.open(&sealed).is_err());
        for wrong in [
            "no key",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            &(both + "and more"),
        ] {
            let said = Keyring::new(None, Some(wrong))
                .map(drop)
                .unwrap_err()
                .to_string();
            assert!(
                said.starts_with("EVIDENCE_TRUSTED_KEYS") && !said.contains("AAAA"),
                "{said}"
            );
        }
    }

    /// A report is shortened until its document can be read back.
    #[test]
    fn a_document_never_exceeds_the_size_limit() {
        let table = |n: usize| TableProof {
            name: format!("public.a_table_with_a_name_{n:06}"),
            rows: 1,
            bytes: n as u64,
            digest: "0".repeat(32),
            restored_rows: Some(1),
            columns: vec![ColumnProof {
                name: "c".repeat(30),
                kind: "text".into(),
                nulls: 0.0,
                span: None,
            }],
        };
        for (tables, kept, columns) in [(1_000, 1_000, 1), (15_000, 15_000, 0), (26_000, 13_000, 0)]
        {
            let mut r = report("r");
            r.tables = (0..tables).map(table).collect();
            let sealed = Envelope::seal(&r, None).unwrap();
            assert!(serde_json::to_vec_pretty(&sealed).unwrap().len() as u64 <= MAX_ENVELOPE);
            let back = sealed.open().unwrap();
            assert_eq!(
                (back.tables.len(), back.tables[0].columns.len()),
                (kept, columns),
                "{tables}"
            );
            // What compares the tables knows that it does not have them all.
            assert_eq!(back.tables_left_out, (tables - kept) as u64);
            let listed = back.listed_tables().unwrap();
            assert_eq!(listed.is_cut, kept < tables);
            let older = VerificationReport {
                tables_left_out: 0,
                ..back.clone()
            };
            assert_eq!(older.listed_tables(), Some(listed));
            assert_eq!(back.notes.is_empty(), tables == 1_000);
        }
    }

    /// Neither do texts that JSON escapes make it longer; what failed is kept as long as anything.
    #[test]
    fn a_report_of_long_texts_is_shortened_too() {
        use crate::proof::{ArchiveProof, Check, Drift};
        let long = "\"".repeat(2 << 10);
        let check = |status| {
            Check::new("assertion", status, long.clone())
                .of(&long)
                .fix(&long)
        };
        let mut r = report("r");
        r.checks = vec![check(CheckStatus::Passed); 100];
        r.checks.extend(vec![check(CheckStatus::Failed); 500]);
        r.notes = vec![long.clone(); 100];
        r.drift = Some(Drift {
            compared_with: "1".into(),
            samples: 1,
            findings: vec![long.clone(); 200],
        });
        let entries = (0..200).map(|n| (format!("{n}{long}"), 1)).collect();
        r.archive = Some(ArchiveProof {
            entries,
            format: "custom".into(),
            wrapped_in: vec![],
            server_version: "17".into(),
            pg_dump_version: "17".into(),
            encoding: "UTF8".into(),
        });
        let sealed = Envelope::seal(&r, None).unwrap();
        let size = serde_json::to_vec_pretty(&sealed).unwrap().len() as u64;
        assert!(size <= MAX_ENVELOPE, "{size}");
        let back = sealed.open().unwrap();
        assert_eq!(back.checks[0].status, CheckStatus::Failed);
        assert!(
            back.notes
                .last()
                .unwrap()
                .contains("checks, notes, findings")
        );
    }
}
