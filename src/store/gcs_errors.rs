//! What Cloud Storage means when it refuses a call, and what to do about it. Pure: the answer of either protocol comes in,
//! an error goes out. docs/troubleshooting.md lists the answers with their sources.

use crate::credentials;
use crate::error::{StorageError, StorageKind, line_of};

/// Most bytes of Google's own sentence in a message; what to do about it follows.
const MAX_WORDS: usize = 400;

/// The class of an answer, by its code in HTTP or gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerStatus {
    /// This machine's credentials yield no token, and will yield none later.
    NoToken,
    /// 401, `UNAUTHENTICATED`.
    Unauthenticated,
    /// 403, `PERMISSION_DENIED`.
    Forbidden,
    /// 404, `NOT_FOUND`.
    NotFound,
    /// 412, `FAILED_PRECONDITION`.
    Precondition,
    /// 400, `INVALID_ARGUMENT`.
    Invalid,
    /// 429, `RESOURCE_EXHAUSTED`.
    TooMany,
    /// Everything else: no answer, a broken connection, a failure of the service.
    Unavailable,
}

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: AnswerStatus,
    /// Its words for programs: `errors[].reason` of JSON, `ErrorInfo.reason`, the types of violated preconditions.
    pub(super) reasons: Vec<String>,
    /// Its sentence for people. Reads of bytes have nothing else.
    pub(super) text: String,
    /// Under what the audit log has a denial by VPC Service Controls, if `text` does not say it.
    pub(super) perimeter_id: Option<String>,
}

/// What was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GcsCall {
    /// The bucket itself, or a listing of it.
    List,
    Describe,
    Read,
    /// On condition that there is no such object.
    Create,
    /// On condition that the object has not been replaced.
    Delete,
    /// Restoring a soft-deleted generation, on condition that the live one has not been replaced.
    Undelete,
}

/// Who pays for requests to a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Billing {
    /// It is the bucket of BACKUP_BUCKET: the project of BACKUP_USER_PROJECT, if that is set.
    BackupBucket(Option<String>),
    /// BACKUP_USER_PROJECT does not concern it.
    OtherBucket,
}

/// A call, for the error if it is refused.
#[derive(Debug, Clone)]
pub(super) struct GcsRequest {
    pub(super) call: GcsCall,
    pub(super) bucket: String,
    /// The object, or the prefix of a listing, as the bucket knows it.
    pub(super) name: String,
    pub(super) billing: Billing,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerCause {
    NoToken,
    TokenRejected,
    ScopeMissing,
    AccountDisabled,
    PermissionMissing,
    UserProjectMissing,
    UserProjectInvalid,
    UserProjectDenied,
    BillingDisabled,
    ApiDisabled,
    OutsidePerimeter,
    AddressFiltered,
    OrganizationPolicy,
    KmsKeyUnusable,
    KmsKeyDenied,
    CustomerKey,
    Retained,
    Held,
    BucketNotFound,
    NotFound,
    Changed,
    Invalid,
    TooMany,
    Unavailable,
}

use AnswerCause as R;

/// How to tell a refusal from others of the same code. The service documents reasons, but sends some refusals with another
/// one (`required` for a missing user project, `forbidden` for a hold), and answers to reads of bytes in plain text.
struct AnswerPattern {
    means: AnswerCause,
    reasons: &'static [&'static str],
    phrases: &'static [&'static str],
}

/// The first that fits counts.
const PATTERNS: [AnswerPattern; 16] = [
    AnswerPattern {
        means: R::CustomerKey,
        reasons: &[
            "resourceIsEncryptedWithCustomerEncryptionKey",
            "customerEncryptionKeyIsIncorrect",
        ],
        phrases: &["is encrypted by a customer-supplied encryption key"],
    },
    AnswerPattern {
        means: R::KmsKeyDenied,
        reasons: &[],
        phrases: &["Permission denied on Cloud KMS key"],
    },
    AnswerPattern {
        means: R::KmsKeyUnusable,
        reasons: &[
            "cloudKmsDisabledKey",
            "cloudKmsDecryptionKeyNotFound",
            "cloudKmsEncryptionKeyNotFound",
            "cloudKmsBadKey",
            "cloudKmsKeyLocationNotAllowed",
            "KEY_DISABLED",
        ],
        phrases: &[
            "Cloud KMS key",
            "Cloud KMS decryption key not found",
            "Cloud KMS encryption key not found",
            "is not enabled, current state is",
        ],
    },
    AnswerPattern {
        means: R::UserProjectMissing,
        reasons: &["userProjectMissing"],
        phrases: &["but no user project provided"],
    },
    AnswerPattern {
        means: R::UserProjectInvalid,
        reasons: &["userProjectInvalid", "CONSUMER_INVALID"],
        phrases: &["User project specified in the request is invalid"],
    },
    AnswerPattern {
        means: R::UserProjectDenied,
        reasons: &["UserProjectAccessDenied", "USER_PROJECT_DENIED"],
        phrases: &["serviceusage.services.use"],
    },
    AnswerPattern {
        means: R::BillingDisabled,
        reasons: &[
            "accountDisabled",
            "UserProjectAccountProblem",
            "BILLING_DISABLED",
            "CONSUMER_SUSPENDED",
        ],
        phrases: &["billing account", "has billing disabled"],
    },
    AnswerPattern {
        means: R::OutsidePerimeter,
        reasons: &["SECURITY_POLICY_VIOLATED"],
        phrases: &[
            "Request is prohibited by organization's policy",
            PERIMETER_ID,
        ],
    },
    // Google does not document its words.
    AnswerPattern {
        means: R::AddressFiltered,
        reasons: &[],
        phrases: &["IP filter"],
    },
    AnswerPattern {
        means: R::ApiDisabled,
        reasons: &["accessNotConfigured", "SERVICE_DISABLED"],
        phrases: &[],
    },
    AnswerPattern {
        means: R::OrganizationPolicy,
        reasons: &[
            "orgPolicyConstraintFailed",
            "RESOURCE_USAGE_RESTRICTION_VIOLATED",
            "ORG_RESTRICTION_VIOLATION",
        ],
        phrases: &[],
    },
    AnswerPattern {
        means: R::ScopeMissing,
        reasons: &["ACCESS_TOKEN_SCOPE_INSUFFICIENT"],
        phrases: &["insufficient authentication scopes"],
    },
    AnswerPattern {
        means: R::Retained,
        reasons: &["retentionPolicyNotMet"],
        phrases: &["is subject to bucket's retention policy"],
    },
    AnswerPattern {
        means: R::Held,
        reasons: &["objectUnderActiveHold"],
        phrases: &[TEMPORARY_HOLD, EVENT_BASED_HOLD],
    },
    AnswerPattern {
        means: R::Changed,
        reasons: &["conditionNotMet"],
        phrases: &[],
    },
    AnswerPattern {
        means: R::TooMany,
        reasons: &[
            "rateLimitExceeded",
            "userRateLimitExceeded",
            "RATE_LIMIT_EXCEEDED",
        ],
        phrases: &[],
    },
];

/// The role that may bill requests to a project.
const PAYERS_ROLE: &str = "roles/serviceusage.serviceUsageConsumer";
const PERIMETER_ID: &str = "vpcServiceControlsUniqueIdentifier";
const TEMPORARY_HOLD: &str = "is under active Temporary hold";
const EVENT_BASED_HOLD: &str = "is under active Event-Based hold";

impl GcsRequest {
    pub(super) fn uri(&self) -> String {
        format!("gs://{}/{}", self.bucket, self.name)
    }
}

impl Answer {
    /// Whether one of its reasons, or its sentence, is this one. `name` is in the sentence, and anybody can choose it.
    fn has(&self, pattern: &AnswerPattern, asked: &GcsRequest) -> bool {
        let is_reason = |known: &&str| self.reasons.iter().any(|r| r.eq_ignore_ascii_case(known));
        let place = format!("{}/{}", asked.bucket, asked.name);
        let sentence = self.text.replace(&place, "");
        pattern.reasons.iter().any(is_reason)
            || pattern
                .phrases
                .iter()
                .any(|phrase| sentence.contains(*phrase))
    }

    fn meaning(&self, asked: &GcsRequest) -> AnswerCause {
        match self.status {
            AnswerStatus::NoToken => R::NoToken,
            AnswerStatus::Unauthenticated if self.has(&ACCOUNT_DISABLED, asked) => {
                R::AccountDisabled
            }
            AnswerStatus::Unauthenticated => R::TokenRejected,
            AnswerStatus::NotFound if asked.call == GcsCall::List => R::BucketNotFound,
            AnswerStatus::NotFound
                if self.text.starts_with("The specified bucket does not exist") =>
            {
                R::BucketNotFound
            }
            AnswerStatus::NotFound => R::NotFound,
            AnswerStatus::TooMany => R::TooMany,
            AnswerStatus::Unavailable => R::Unavailable,
            AnswerStatus::Forbidden => self.cause_by_pattern(asked).unwrap_or(R::PermissionMissing),
            AnswerStatus::Invalid => self.cause_by_pattern(asked).unwrap_or(R::Invalid),
            AnswerStatus::Precondition => {
                self.cause_by_pattern(asked).unwrap_or(match asked.call {
                    GcsCall::Create | GcsCall::Delete | GcsCall::Undelete => R::Changed,
                    // No condition was made: it is a state of the bucket that this program does not know.
                    GcsCall::List | GcsCall::Describe | GcsCall::Read => R::Unavailable,
                })
            }
        }
    }

    fn cause_by_pattern(&self, asked: &GcsRequest) -> Option<AnswerCause> {
        let found = PATTERNS.iter().find(|pattern| self.has(pattern, asked));
        found.map(|pattern| pattern.means)
    }

    /// What the error is of.
    pub(super) fn kind(&self, asked: &GcsRequest) -> StorageKind {
        match self.meaning(asked) {
            R::NoToken
            | R::TokenRejected
            | R::ScopeMissing
            | R::AccountDisabled
            | R::PermissionMissing
            | R::UserProjectMissing
            | R::UserProjectInvalid
            | R::UserProjectDenied
            | R::BillingDisabled
            | R::ApiDisabled
            | R::OutsidePerimeter
            | R::AddressFiltered
            | R::OrganizationPolicy
            | R::KmsKeyUnusable
            | R::KmsKeyDenied => StorageKind::AccessDenied,
            R::CustomerKey => StorageKind::KeyMissing,
            R::Retained | R::Held => StorageKind::Retained,
            // What is read was there when it was pinned.
            R::BucketNotFound | R::NotFound if asked.call == GcsCall::Read => StorageKind::Changed,
            R::BucketNotFound | R::NotFound => StorageKind::NotFound,
            R::Changed => StorageKind::Changed,
            R::Invalid => StorageKind::CallRejected,
            R::TooMany | R::Unavailable => StorageKind::DownloadFailed,
        }
    }

    /// The error: what was refused, why, and what to do about it. `None` if the service gave no answer that says so; the
    /// client's own words say more then.
    pub(super) fn error(&self, asked: &GcsRequest) -> Option<StorageError> {
        let meaning = self.meaning(asked);
        let what = self.what(meaning, asked)?;
        let words = self.text.trim();
        // These sentences have nothing else to say.
        let is_said = matches!(meaning, R::BucketNotFound | R::NotFound) || words.is_empty();
        let quoted = if is_said {
            String::new()
        } else {
            format!(" ({})", line_of(words, MAX_WORDS))
        };
        let message = format!("{}: {what}{quoted}", asked.uri());
        let error = StorageError::new(self.kind(asked), message);
        Some(match self.fix(meaning, asked) {
            Some(fix) => error.with_fix(&fix),
            None => error,
        })
    }

    fn what(&self, meaning: AnswerCause, asked: &GcsRequest) -> Option<String> {
        let payer = asked.payer();
        Some(match meaning {
            R::NoToken => "the credentials for Google Cloud yield no access token".into(),
            R::TokenRejected => {
                "Google Cloud rejects the access token, which is missing, expired or revoked".into()
            }
            R::ScopeMissing => "the access token lacks the scope for Cloud Storage".into(),
            R::AccountDisabled => "the account of the credentials is disabled or deleted".into(),
            R::PermissionMissing => match permission_in(&self.text) {
                Some(permission) => format!("this account lacks {permission}"),
                None => "this account lacks a permission".into(),
            },
            R::UserProjectMissing => {
                "it is a Requester Pays bucket, and the request names no project to bill".into()
            }
            R::UserProjectInvalid => format!("{payer}, which is to be billed, does not exist"),
            R::UserProjectDenied => format!("this account may not bill requests to {payer}"),
            R::BillingDisabled => {
                "billing is disabled for the project of the bucket, or for the one that is billed"
                    .into()
            }
            R::ApiDisabled => "the API of Cloud Storage is disabled".into(),
            R::OutsidePerimeter => "VPC Service Controls deny requests from here".into(),
            R::AddressFiltered => "the bucket's IP filter denies requests from this network".into(),
            R::OrganizationPolicy => "a policy of the organization forbids it".into(),
            R::KmsKeyUnusable => "its Cloud KMS key is disabled, destroyed or not found".into(),
            R::KmsKeyDenied => "Cloud Storage itself may not use its Cloud KMS key".into(),
            R::CustomerKey => {
                "it is encrypted with a customer-supplied key, which pgrestored cannot send".into()
            }
            R::Retained => match end_of_retention(&self.text) {
                Some(end) => format!("a retention policy keeps it until {end}"),
                None => "a retention policy keeps it".into(),
            },
            R::Held => "a hold keeps it".into(),
            R::BucketNotFound | R::NotFound | R::Changed if asked.call == GcsCall::Read => {
                "this generation of it does not exist any more".into()
            }
            R::BucketNotFound => "no such bucket".into(),
            R::NotFound => "no such object or bucket".into(),
            R::Changed => "it was replaced or deleted meanwhile".into(),
            R::Invalid => "Cloud Storage rejects the call as invalid".into(),
            R::TooMany => "Cloud Storage limits the rate of requests".into(),
            R::Unavailable => return None,
        })
    }

    fn fix(&self, meaning: AnswerCause, asked: &GcsRequest) -> Option<String> {
        let (uri, setting) = (shell_word(&asked.uri()), asked.payers_setting());
        Some(match meaning {
            R::NoToken => credentials::ADVICE.into(),
            R::TokenRejected => format!(
                "check this machine's clock, and whether its credentials are still valid: {}",
                credentials::ADVICE
            ),
            R::ScopeMissing => {
                "give the instance or node pool the scope https://www.googleapis.com/auth/cloud-platform, \
                 or use Workload Identity"
                    .into()
            }
            R::AccountDisabled => {
                "enable it (gcloud iam service-accounts enable ACCOUNT), or run as another one".into()
            }
            R::PermissionMissing => asked.grant(),
            R::UserProjectMissing => {
                let (variable, note) = match asked.billing {
                    Billing::BackupBucket(_) => ("BACKUP_USER_PROJECT", ""),
                    Billing::OtherBucket => (
                        "GOOGLE_CLOUD_QUOTA_PROJECT",
                        "; BACKUP_USER_PROJECT is for BACKUP_BUCKET alone",
                    ),
                };
                format!("set {variable} to a project where this account has {PAYERS_ROLE}{note}")
            }
            R::UserProjectInvalid => format!("correct {setting}"),
            R::UserProjectDenied => format!(
                "gcloud projects add-iam-policy-binding {} --member=serviceAccount:WORKER --role={PAYERS_ROLE}, or \
                 correct {setting}",
                asked.user_project().unwrap_or("PROJECT")
            ),
            R::BillingDisabled => {
                "gcloud billing projects link PROJECT --billing-account=ACCOUNT, with an open account".into()
            }
            R::ApiDisabled => {
                "gcloud services enable storage.googleapis.com --project=PROJECT".into()
            }
            R::OutsidePerimeter => format!(
                "run the worker inside the perimeter of the bucket, or have an ingress rule made for its account; the \
                 audit log has the denial under {}",
                self.perimeter_id().unwrap_or("its unique identifier")
            ),
            R::AddressFiltered => format!(
                "run the worker in a network that the filter allows, or add its own: gcloud storage buckets describe gs://{} \
                 --format='default(ip_filter_config)'",
                asked.bucket
            ),
            R::OrganizationPolicy => {
                "ask the administrators of the organization which constraint it is".into()
            }
            R::KmsKeyUnusable => format!(
                "enable the version of the key again, or restore it while its destruction is only scheduled: gcloud kms \
                 keys versions enable VERSION --key=KEY --keyring=RING --location=LOCATION; {} names the key",
                asked.describing()
            ),
            R::KmsKeyDenied => {
                "grant roles/cloudkms.cryptoKeyEncrypterDecrypter on the key to the service agent that gcloud storage \
                 service-agent --project=PROJECT_OF_THE_BUCKET prints"
                    .into()
            }
            R::CustomerKey => format!(
                "let Google encrypt it: gcloud storage objects update {uri} --clear-encryption-key --decryption-keys=KEY; \
                 or pipe it: gcloud storage cat {uri} --decryption-keys=KEY | pgrestored restore - --target DB"
            ),
            R::Retained => {
                "delete it after that; BACKUP_RETENTION_DAYS should not be shorter than the bucket's retention period"
                    .into()
            }
            R::Held => format!(
                "if nobody needs the hold any more: gcloud storage objects update {uri} {}",
                self.release()
            ),
            R::BucketNotFound
            | R::NotFound
            | R::Changed
            | R::Invalid
            | R::TooMany
            | R::Unavailable => return None,
        })
    }

    /// The option that releases the hold of which the sentence speaks.
    fn release(&self) -> &'static str {
        if self.text.contains(TEMPORARY_HOLD) {
            "--no-temporary-hold"
        } else if self.text.contains(EVENT_BASED_HOLD) {
            "--no-event-based-hold"
        } else {
            "--no-temporary-hold --no-event-based-hold"
        }
    }

    fn perimeter_id(&self) -> Option<&str> {
        let said = self.text.split_once(PERIMETER_ID);
        let in_text = said.map(|(_, rest)| rest.trim_start_matches([':', ' ']));
        let in_text = in_text.and_then(|rest| rest.split_whitespace().next());
        self.perimeter_id.as_deref().or(in_text)
    }
}

/// Only with a status of 401.
const ACCOUNT_DISABLED: AnswerPattern = AnswerPattern {
    means: R::AccountDisabled,
    reasons: &["ACCOUNT_STATE_INVALID"],
    phrases: &[],
};

impl GcsRequest {
    /// The project that this program asked to be billed.
    fn user_project(&self) -> Option<&str> {
        match &self.billing {
            Billing::BackupBucket(project) => project.as_deref(),
            Billing::OtherBucket => None,
        }
    }

    fn payer(&self) -> String {
        match self.user_project() {
            Some(project) => format!("the project {project}"),
            None => "the quota project of the credentials".to_owned(),
        }
    }

    /// Where the project comes from that is billed.
    fn payers_setting(&self) -> &'static str {
        match self.user_project() {
            Some(_) => "BACKUP_USER_PROJECT",
            None => {
                "GOOGLE_CLOUD_QUOTA_PROJECT, or the quota project in the file of the credentials"
            }
        }
    }

    /// How to get the permission that the call needs.
    fn grant(&self) -> String {
        let role = match self.call {
            GcsCall::List | GcsCall::Describe | GcsCall::Read => "roles/storage.objectViewer",
            GcsCall::Create => "roles/storage.objectCreator",
            GcsCall::Delete => "roles/storage.objectUser",
            GcsCall::Undelete => "roles/storage.objectAdmin",
        };
        let bucket = &self.bucket;
        format!(
            "grant it {role} on the bucket, in whichever project that is: gcloud storage buckets add-iam-policy-binding \
             gs://{bucket} --member=serviceAccount:WORKER --role={role}; names of buckets are global, so gs://{bucket} may \
             also be somebody else's"
        )
    }

    /// The command that names the key of an object, or the one that the bucket gives to new ones.
    fn describing(&self) -> String {
        match self.call {
            GcsCall::List | GcsCall::Create => {
                format!("gcloud storage buckets describe gs://{}", self.bucket)
            }
            GcsCall::Describe | GcsCall::Read | GcsCall::Delete | GcsCall::Undelete => {
                let uri = shell_word(&self.uri());
                format!("gcloud storage objects describe {uri}")
            }
        }
    }
}

/// A word of a shell's command line, such as the URI of an object of any name.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&b);
    if text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The permission that a sentence says is missing: `X does not have storage.objects.get access to …`.
fn permission_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("does not have ")?;
    let (permission, _) = rest.split_once(" access to ")?;
    let is_of_name = |b: u8| b.is_ascii_alphanumeric() || b == b'.';
    permission.bytes().all(is_of_name).then_some(permission)
}

/// The time in `… cannot be deleted or overwritten until 2026-09-30T15:58:01.185839-07:00`.
fn end_of_retention(text: &str) -> Option<jiff::Timestamp> {
    let (_, rest) = text.rsplit_once(" until ")?;
    let time = rest.split_whitespace().next()?.trim_end_matches('.');
    time.parse().ok()
}
