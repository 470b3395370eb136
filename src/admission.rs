//! Decides whether a request is allowed: by its signature, and by the sources, targets and modes that the
//! policy allows its subscription. Pure; decided before anything is read or connected to.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::{Config, Location};
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::job::{BackupRef, Job, OnExisting};
use crate::policy::matches;

/// Message attributes of a signed request.
const KEY_ID: &str = "signature-key-id";
const EXPIRES: &str = "signature-expires";
const SIGNATURE: &str = "signature";

/// The policy file: what each subscription allows.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Keys that sign requests, by their ids.
    #[serde(default)]
    pub keys: BTreeMap<String, KeySpec>,
    /// Rules by the name of the subscription. Requests on any other subscription are rejected.
    pub subscriptions: BTreeMap<String, Rules>,
}

/// A key that signs requests.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeySpec {
    /// Public key in PEM, as `openssl pkey -pubout` writes it.
    Ed25519(String),
    /// File with a secret of at least 32 bytes, for HMAC-SHA256.
    HmacSha256File(std::path::PathBuf),
}

/// What one subscription allows; a list that is left out limits nothing.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Locations of backups: `gs://bucket/prefix`, `file:///folder`.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Patterns of target databases, with `*` and `?`.
    #[serde(default)]
    pub targets: Vec<String>,
    /// `restore`, `verify`.
    #[serde(default)]
    pub modes: Vec<crate::event::Mode>,
    /// `fail`, `replace`, `fill`.
    #[serde(default)]
    pub on_existing: Vec<OnExisting>,
    /// Ids of keys, one of which must have signed the request.
    #[serde(default)]
    pub keys: Vec<String>,
}

enum Key {
    Ed25519(Vec<u8>),
    Hmac(Box<hmac::Key>),
}

/// The parsed rules of one subscription.
pub struct Admission {
    bucket: Location,
    sources: Vec<Location>,
    rules: Rules,
    keys: BTreeMap<String, Key>,
    /// Whether nothing is allowed, because the policy file does not name the subscription.
    is_closed: bool,
}

fn invalid(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

fn not_in_policy() -> RestoreError {
    invalid("this subscription is not in REQUEST_POLICY")
}

impl Admission {
    /// The rules for `subscription`; without a policy file, everything is allowed.
    ///
    /// # Errors
    /// All errors in the policy file, without values.
    pub fn new(config: &Config, subscription: &str) -> Result<Self, Vec<String>> {
        let bucket = config.bucket.clone();
        let Some(document) = &config.request_policy else {
            let (rules, keys) = (Rules::default(), BTreeMap::new());
            return Ok(Admission {
                bucket,
                sources: vec![],
                rules,
                keys,
                is_closed: false,
            });
        };
        let parsed = document.parse::<PolicyFile>();
        let file = parsed.map_err(|what| vec![format!("REQUEST_POLICY: {what}")])?;
        let mut wrong = Vec::new();
        let mut keys = BTreeMap::new();
        for (id, spec) in &file.keys {
            match Key::of(spec) {
                Ok(key) => drop(keys.insert(id.clone(), key)),
                Err(what) => wrong.push(format!("keys.{id}: {what}")),
            }
        }
        for (name, rules) in &file.subscriptions {
            let unknown = rules.keys.iter().filter(|k| !file.keys.contains_key(*k));
            wrong.extend(unknown.map(|k| format!("{name}: unknown key {k}")));
            let places = rules
                .sources
                .iter()
                .filter_map(|s| Location::parse(s).err());
            wrong.extend(places.map(|e| format!("{name}: sources: {e}")));
        }
        if !wrong.is_empty() {
            let of_file = |what: String| format!("REQUEST_POLICY: {}: {what}", document.path);
            return Err(wrong.into_iter().map(of_file).collect());
        }
        let found = file.subscriptions.get(subscription).cloned();
        let is_closed = found.is_none();
        let rules = found.unwrap_or_default();
        let sources = rules
            .sources
            .iter()
            .filter_map(|s| Location::parse(s).ok())
            .collect();
        Ok(Admission {
            bucket,
            sources,
            rules,
            keys,
            is_closed,
        })
    }

    /// Checks that the message is signed as its subscription requires; `published` is in microseconds since
    /// 1970.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn check_signature(
        &self,
        data: &[u8],
        attributes: &HashMap<String, String>,
        published: i64,
    ) -> Result<(), RestoreError> {
        if self.is_closed {
            return Err(not_in_policy());
        }
        if self.rules.keys.is_empty() {
            return Ok(());
        }
        let attribute = |name: &str| {
            let value = attributes.get(name).map(String::as_str);
            value.ok_or_else(|| {
                invalid(format!(
                    "the request must be signed, but has no attribute {name}"
                ))
            })
        };
        let (id, expires) = (attribute(KEY_ID)?, attribute(EXPIRES)?);
        let signature = STANDARD.decode(attribute(SIGNATURE)?);
        let bad_signature =
            || invalid("the signature was not made with a key that this subscription accepts");
        let key = self
            .keys
            .get(id)
            .filter(|_| self.rules.keys.iter().any(|k| k == id))
            .ok_or_else(bad_signature)?;
        let message = signed_bytes(id, expires, data);
        let signature = signature.map_err(|_| bad_signature())?;
        let verified = match key {
            Key::Ed25519(public) => {
                UnparsedPublicKey::new(&ED25519, public).verify(&message, &signature)
            }
            Key::Hmac(secret) => hmac::verify(secret, &message, &signature),
        };
        verified.map_err(|_| bad_signature())?;
        let expires: jiff::Timestamp = expires
            .parse()
            .map_err(|_| invalid(format!("{EXPIRES}: must be a time (RFC 3339)")))?;
        if expires.as_microsecond() < published {
            Err(invalid(
                "the signature had expired when the request was published",
            ))
        } else {
            Ok(())
        }
    }

    /// Checks that a request may be without an id of its own. A signed one may not: whoever may publish could repeat its
    /// message under a new message id until the signature expires.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn check_may_lack_id(&self) -> Result<(), RestoreError> {
        if self.rules.keys.is_empty() {
            return Ok(());
        }
        Err(invalid(
            "request_id: required, because this subscription requires signed requests: without it, a copy of the message would be another request",
        ))
    }

    /// Checks that the policy allows this job on the subscription.
    ///
    /// # Errors
    /// `source_not_allowed`, `target_not_allowed`, `invalid_request`.
    pub fn check(&self, job: &Job) -> Result<(), RestoreError> {
        use crate::event::Mode;
        let refuse = |kind, what: String| Err(ValidationError::new(kind, what).into());
        let (mode, on_existing) = match job {
            Job::Restore(_) if job.is_rehearsal() => (Mode::Rehearse, None),
            Job::Restore(job) => (Mode::Restore, Some(job.on_existing)),
            Job::Verify(_) => (Mode::Verify, None),
        };
        if !self.rules.modes.is_empty() && !self.rules.modes.contains(&mode) {
            return refuse(
                ValidationKind::InvalidRequest,
                "mode: not allowed on this subscription".into(),
            );
        }
        if !self.sources.is_empty() && !self.is_source(job.backup()) {
            return refuse(
                ValidationKind::SourceNotAllowed,
                "the backup is outside the sources allowed on this subscription".into(),
            );
        }
        let allowed = &self.rules.on_existing;
        if on_existing.is_some_and(|o| !allowed.is_empty() && !allowed.contains(&o)) {
            return refuse(
                ValidationKind::TargetNotAllowed,
                "on_existing: this value is not allowed on this subscription".into(),
            );
        }
        match job.target_db() {
            Some(target) if !fits(&self.rules.targets, target) => refuse(
                ValidationKind::TargetNotAllowed,
                format!("target_db: {target} is not allowed on this subscription"),
            ),
            _ => Ok(()),
        }
    }

    /// Checks that the policy allows a job that the configuration asks for, and that needs no signature.
    ///
    /// # Errors
    /// As [`Admission::check`].
    pub fn check_own(&self, job: &Job) -> Result<(), RestoreError> {
        if self.is_closed {
            return Err(not_in_policy());
        }
        self.check(job)
    }

    fn is_source(&self, backup: &BackupRef) -> bool {
        let (place, name) = match backup {
            BackupRef::Named { place, name } => (place.as_ref().unwrap_or(&self.bucket), name),
            BackupRef::Latest(wanted) => (&self.bucket, &wanted.prefix),
            BackupRef::Stdin => return false,
        };
        self.sources.iter().any(|s| s.contains(place, name))
    }
}

/// Whether a name matches one of the patterns, or there are no patterns.
pub fn fits(patterns: &[String], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|p| matches(p, name))
}

/// The decoded content of the PEM block with this label.
pub fn der_of(pem: &str, label: &str) -> Option<Vec<u8>> {
    let body = pem.split(&format!("-----BEGIN {label}-----")).nth(1)?;
    let body: String = body.split("-----END").next()?.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

/// Length of the header before the key in a DER-encoded Ed25519 public key.
const PUBLIC_PREFIX_BYTES: usize = 12;
/// Least bytes of a shared secret.
const MIN_SECRET: usize = 32;

impl Key {
    fn of(spec: &KeySpec) -> Result<Self, String> {
        match spec {
            KeySpec::Ed25519(pem) => {
                let der = der_of(pem, "PUBLIC KEY").filter(|d| d.len() == PUBLIC_PREFIX_BYTES + 32);
                let der =
                    der.ok_or("must be an Ed25519 public key in PEM (openssl pkey -pubout)")?;
                Ok(Key::Ed25519(der[PUBLIC_PREFIX_BYTES..].to_vec()))
            }
            KeySpec::HmacSha256File(file) => {
                let secret =
                    std::fs::read(file).map_err(|e| format!("cannot be read: {}", e.kind()))?;
                Ok(Key::Hmac(Box::new(hmac_key(&secret)?)))
            }
        }
    }
}

fn hmac_key(secret: &[u8]) -> Result<hmac::Key, String> {
    let secret = secret.trim_ascii_end();
    if secret.len() >= MIN_SECRET {
        Ok(hmac::Key::new(hmac::HMAC_SHA256, secret))
    } else {
        Err(format!("must have at least {MIN_SECRET} bytes"))
    }
}

fn signed_bytes(key_id: &str, expires: &str, data: &[u8]) -> Vec<u8> {
    let mut out = format!("pgrestored-request-v1\n{key_id}\n{expires}\n").into_bytes();
    out.extend_from_slice(data);
    out
}

/// Signs a request and returns the attributes to add to its message. `secret` is an Ed25519 key (PKCS #8 in
/// PEM) or a shared secret.
///
/// # Errors
/// What is wrong with the key, without repeating it.
pub fn sign(
    secret: &str,
    key_id: &str,
    expires: jiff::Timestamp,
    data: &[u8],
) -> Result<[(&'static str, String); 3], String> {
    let expires = expires.to_string();
    let message = signed_bytes(key_id, &expires, data);
    let signature = if secret.contains("-----BEGIN") {
        let der = der_of(secret, "PRIVATE KEY");
        let pair = der.and_then(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok());
        let pair = pair.ok_or("must be an Ed25519 key, PKCS #8 in PEM")?;
        STANDARD.encode(pair.sign(&message).as_ref())
    } else {
        STANDARD.encode(hmac::sign(&hmac_key(secret.as_bytes())?, &message).as_ref())
    };
    Ok([
        (KEY_ID, key_id.to_owned()),
        (EXPIRES, expires),
        (SIGNATURE, signature),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Document, RawConfig};
    use crate::error::FailureReason as R;
    use crate::event::RestoreRequest;

    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
    /// The public key of `PRIVATE`.
    fn public() -> String {
        use aws_lc_rs::signature::KeyPair;
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der_of(PRIVATE, "PRIVATE KEY").unwrap())
                .unwrap();
        let prefix = [
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        let der = [&prefix[..], pair.public_key().as_ref()].concat();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    }

    fn admission(policy: &str, subscription: &str) -> Result<Admission, Vec<String>> {
        let raw = RawConfig::from_flags(&[("backup-bucket", "gs://bkt/tenant-a")]).unwrap();
        let mut config = Config::new(&raw).unwrap();
        config.request_policy = Some(Document {
            path: "policy.yaml".to_owned(),
            text: policy.to_owned(),
        });
        Admission::new(&config, subscription)
    }

    fn job(body: &str) -> Job {
        let request = RestoreRequest::from_message(body.as_bytes(), &HashMap::new()).unwrap();
        request.into_job(Some("app_default")).unwrap()
    }

    #[test]
    fn a_subscription_allows_what_its_rules_allow() {
        let policy = "subscriptions:\n  tenant:\n    sources: [gs://bkt/tenant-a, gs://shared/public]\n    targets: ['app_*']\n    modes: [restore]\n    on_existing: [fail]\n";
        let a = admission(policy, "tenant").unwrap();
        let ask = |body: &str| a.check(&job(body)).map_err(|e| e.reason());
        assert_eq!(ask(r#"{"request_id":"1","backup":{"name":"x"}}"#), Ok(()));
        assert_eq!(
            ask(r#"{"request_id":"1","backup":{"name":"latest"}}"#),
            Ok(())
        );
        assert_eq!(
            ask(
                r#"{"request_id":"1","backup":{"uri":"gs://shared/public/x"},"target_db":"app_1"}"#
            ),
            Ok(())
        );
        for (body, reason) in [
            (
                r#"{"request_id":"1","backup":{"uri":"gs://bkt/tenant-b/x"}}"#,
                R::SourceNotAllowed,
            ),
            (
                r#"{"request_id":"1","backup":{"uri":"gs://bkt/tenant-ab/x"}}"#,
                R::SourceNotAllowed,
            ),
            (
                r#"{"request_id":"1","backup":{"uri":"gs://shared/x"}}"#,
                R::SourceNotAllowed,
            ),
            (
                r#"{"request_id":"1","backup":{"name":"x"},"target_db":"other"}"#,
                R::TargetNotAllowed,
            ),
            (
                r#"{"request_id":"1","backup":{"name":"x"},"target_db":"xapp_1"}"#,
                R::TargetNotAllowed,
            ),
            (
                r#"{"request_id":"1","backup":{"name":"x"},"on_existing":"replace"}"#,
                R::TargetNotAllowed,
            ),
            (
                r#"{"request_id":"1","backup":{"name":"x"},"mode":"verify"}"#,
                R::InvalidRequest,
            ),
        ] {
            assert_eq!(ask(body), Err(reason), "{body}");
        }
        assert!(a.check_may_lack_id().is_ok());
        let closed = admission(policy, "another").unwrap();
        assert!(closed.check_signature(b"{}", &HashMap::new(), 0).is_err());
        for wrong in [
            "subscriptions: 1",
            "subscriptions: {a: {modes: [destroy]}}",
            "subscriptions: {a: {sauces: []}}",
            "subscriptions: {a: {keys: [nobody]}}",
            "subscriptions: {a: {sources: [ftp://x]}}",
            "keys: {k: {ed25519: nothing}}\nsubscriptions: {}",
            "keys: {k: {hmac_sha256_file: /nowhere}}\nsubscriptions: {}",
        ] {
            assert!(admission(wrong, "a").is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_an_unexpired_signature_by_an_accepted_key_over_the_same_bytes_is_valid() {
        let secret = std::env::temp_dir().join(format!("pgrestored-hmac-{}", std::process::id()));
        let shared = "0123456789abcdef0123456789abcdef";
        std::fs::write(&secret, format!("{shared}\n")).unwrap();
        let indented = public().replace('\n', "\n      ");
        let policy = format!(
            "keys:\n  ops:\n    ed25519: |\n      {indented}\n  ci:\n    hmac_sha256_file: {}\n  old:\n    hmac_sha256_file: {}\nsubscriptions:\n  s: {{keys: [ops, ci]}}\n",
            secret.display(),
            secret.display()
        );
        let a = admission(&policy, "s").unwrap();
        std::fs::remove_file(&secret).unwrap();
        assert!(a.check_may_lack_id().is_err());
        let now: jiff::Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let later: jiff::Timestamp = "2026-11-24T13:00:00Z".parse().unwrap();
        let attributes = |key: &str, id: &str, data: &[u8]| -> HashMap<String, String> {
            sign(key, id, later, data)
                .unwrap()
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect()
        };
        let check = |data: &[u8], attributes: &HashMap<String, String>, at: jiff::Timestamp| {
            a.check_signature(data, attributes, at.as_microsecond())
                .is_ok()
        };
        for (key, id) in [(PRIVATE, "ops"), (shared, "ci")] {
            let good = attributes(key, id, b"body");
            assert!(
                check(b"body", &good, now) && check(b"body", &good, later),
                "{id}"
            );
            assert!(
                !check(b"body", &good, "2026-11-24T13:00:01Z".parse().unwrap()),
                "{id}: expired"
            );
            assert!(!check(b"bodY", &good, now), "{id}: other bytes");
            for (name, value) in [
                (KEY_ID, "old"),
                (KEY_ID, "nobody"),
                (EXPIRES, "2027-01-01T00:00:00Z"),
                (SIGNATURE, "AAAA"),
                (SIGNATURE, "not base64!"),
            ] {
                let mut changed = good.clone();
                changed.insert(name.into(), value.into());
                assert!(!check(b"body", &changed, now), "{id}: {name}");
                changed.remove(name);
                assert!(!check(b"body", &changed, now), "{id}: no {name}");
            }
        }
        // Signed with a key of the policy file that this subscription does not accept.
        assert!(!check(b"body", &attributes(shared, "old", b"body"), now));
        assert!(!check(b"body", &HashMap::new(), now));
        assert!(sign("short", "ci", later, b"").is_err());
    }
}
