//! The composition root: builds clients, manager and worker from the configuration. No other module
//! builds a real client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::admin;
use crate::admission::{self, Admission};
use crate::config::{Config, ConfigErrors, DbAuth};
use crate::credentials::LoginTokens;
use crate::database::TargetHealth;
use crate::error::{DatabaseError, report};
use crate::manager::RestoreManager;
use crate::metrics::{RestoreMetricsManager, now_seconds};
use crate::postgres::Server;
use crate::queue::{PubSub, PubSubConfig, QueueError, RequestQueue, Resource};
use crate::standing;
use crate::store::Stores;
use crate::verification::{ChecksFile, Keyring};
use crate::worker::{Shutdown, Worker, WorkerSettings, WorkerState};

/// How long a lease may last beyond the time limit of a restore.
const LEASE_MARGIN: Duration = Duration::from_secs(15 * 60);

/// A stream of requests is reopened after being silent for this long.
const IDLE_RECYCLE: Duration = Duration::from_secs(5 * 60);

/// Why an app could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("ADMIN_ADDR: {0}")]
    Admin(std::io::Error),
}

/// Everything that commands use.
pub struct App {
    pub config: Arc<Config>,
    pub metrics: RestoreMetricsManager,
    pub manager: RestoreManager,
}

impl App {
    /// Builds the app; connects to nothing.
    ///
    /// # Errors
    /// A document that the configuration names is invalid, or TLS to the target server cannot be set up.
    pub fn new(mut config: Config) -> Result<Self, AppError> {
        check_documents(&config)?;
        if config.db_auth == DbAuth::GcpIam {
            config.db.passwords = Some(Arc::new(LoginTokens::default()));
        }
        let config = Arc::new(config);
        let metrics = RestoreMetricsManager::new(now_seconds());
        let stores = Stores::new(config.storage_emulator.clone());
        let stores = stores
            .with_first_contact(config.first_contact)
            .with_user_project(&config.bucket, config.user_project.as_deref());
        let stores = Arc::new(stores);
        let server = Server::new(&config.db)?;
        let manager = RestoreManager::new(config.clone(), stores, server, metrics.clone());
        Ok(App {
            config,
            metrics,
            manager,
        })
    }

    /// A Pub/Sub client for the configured project.
    ///
    /// # Errors
    /// No project is configured.
    pub fn pubsub(&self) -> Result<PubSub, AppError> {
        let project = self.config.project.clone();
        let project =
            project.ok_or_else(|| ConfigErrors(vec!["GOOGLE_CLOUD_PROJECT: required".into()]))?;
        Ok(PubSub::new(PubSubConfig {
            project,
            emulator: self.config.pubsub_emulator.clone(),
            max_lease: self.config.timeout + LEASE_MARGIN,
            concurrency: self.config.max_concurrent,
            lease_extension: self.config.lease_extension,
            idle_recycle: IDLE_RECYCLE,
        }))
    }

    /// Starts the worker and its admin server; they run until `shutdown`.
    ///
    /// # Errors
    /// The admin address cannot be bound, or a client cannot be built.
    pub async fn start_worker(&self, shutdown: Shutdown) -> Result<RunningWorker, AppError> {
        let pubsub = self.pubsub()?;
        let required = self.required_resources();
        let listener = TcpListener::bind(self.config.admin_addr)
            .await
            .map_err(AppError::Admin)?;
        let admin = listener.local_addr().map_err(AppError::Admin)?;
        let state = Arc::new(WorkerState::new(&self.config));
        state.follow(pubsub.health());
        let target = self.watch_target(&state)?;
        let routes = admin::router(
            self.metrics.clone(),
            state.clone(),
            &self.config.admin_hosts,
        );
        let served = AbortOnDropHandle::new(tokio::spawn(admin::serve(listener, routes)));
        // First, because the clients wait silently for credentials, and for a missing topic or subscription.
        let watching = pubsub.clone().watch(required).await;
        let watched = AbortOnDropHandle::new(tokio::spawn(watching));
        let results = Arc::new(pubsub.topic(&self.config.completion_topic).await?);
        let requests = pubsub.subscribe(&self.config.request_subscription).await?;
        let notifications: Option<Box<dyn RequestQueue>> =
            match &self.config.notification_subscription {
                Some(name) => Some(Box::new(pubsub.subscribe(name).await?)),
                None => None,
            };
        let admission = Admission::new(&self.config, &self.config.request_subscription)
            .map_err(ConfigErrors)?;
        let standing = standing::orders(&self.config, &admission).map_err(ConfigErrors)?;
        let settings = WorkerSettings {
            standing,
            ..WorkerSettings::new(&self.config, admission)
        };
        let worker = Worker::new(
            self.manager.clone(),
            results,
            self.metrics.clone(),
            settings,
        )
        .with_state(state.clone());
        tracing::info!(
            %admin,
            subscription = self.config.request_subscription,
            topic = self.config.completion_topic,
            emulator = self.config.pubsub_emulator.is_some(),
            restores_at_once = self.config.max_concurrent,
            jobs = self.config.jobs,
            notifications = self.config.notification_subscription.as_deref().unwrap_or(""),
            "the worker is up"
        );
        let task = tokio::spawn(async move {
            worker
                .run(Box::new(requests), notifications, shutdown)
                .await
        });
        Ok(RunningWorker {
            admin,
            state,
            task,
            _served: served,
            _watched: (watched, target),
        })
    }

    /// Watches the target server, if one is configured: a worker that only verifies has none.
    fn watch_target(&self, state: &WorkerState) -> Result<Option<AbortOnDropHandle<()>>, AppError> {
        if !self.config.is_target_set {
            return Ok(None);
        }
        let (db, health) = (&self.config.db, TargetHealth::default());
        state.follow_target(health.clone());
        let resource = format!("target server {}:{}", db.host, db.port);
        let watching = health.watch(Server::new(db)?, resource);
        Ok(Some(AbortOnDropHandle::new(tokio::spawn(watching))))
    }

    /// The topics and subscriptions that the worker needs.
    fn required_resources(&self) -> Vec<(Resource, String)> {
        let c = &self.config;
        let mut required = vec![
            (Resource::Subscription, c.request_subscription.clone()),
            (Resource::Topic, c.completion_topic.clone()),
        ];
        required.extend(
            c.notification_subscription
                .clone()
                .map(|name| (Resource::Subscription, name)),
        );
        required
    }
}

/// Checks the documents that the configuration names (keys, checks, request policy, standing restores) at the start, and
/// not only when they are needed.
///
/// # Errors
/// All errors in them.
pub fn check_documents(config: &Config) -> Result<(), ConfigErrors> {
    use secrecy::ExposeSecret;
    let checks = config
        .verify
        .checks
        .as_ref()
        .map(|document| ChecksFile::parse(document).map(drop));
    let key = config
        .verify
        .signing_key
        .as_ref()
        .map(|k| k.expose_secret());
    let keys = Keyring::new(key, config.verify.trusted_keys.as_deref()).map(drop);
    let mut wrong: Vec<String> = [checks, Some(keys)]
        .into_iter()
        .flatten()
        .filter_map(|r| r.err().map(|e| report(&e)))
        .collect();
    let admission = Admission::new(config, &config.request_subscription);
    let orders = admission.and_then(|admission| standing::orders(config, &admission));
    wrong.extend(orders.err().into_iter().flatten());
    if let Some((id, key)) = &config.signing_key {
        let signed = admission::sign(key.expose_secret(), id, jiff::Timestamp::UNIX_EPOCH, b"");
        wrong.extend(signed.err().map(|e| format!("REQUEST_SIGNING_KEY: {e}")));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(ConfigErrors(wrong))
    }
}

/// A running worker.
pub struct RunningWorker {
    /// Address of the admin server.
    pub admin: SocketAddr,
    pub state: Arc<WorkerState>,
    task: tokio::task::JoinHandle<Result<(), QueueError>>,
    _served: AbortOnDropHandle<()>,
    _watched: (AbortOnDropHandle<()>, Option<AbortOnDropHandle<()>>),
}

impl RunningWorker {
    /// Waits until the worker has drained.
    ///
    /// # Errors
    /// The subscription refused the worker, or the worker's task panicked.
    pub async fn ended(self) -> Result<(), AppError> {
        let ended = self.task.await;
        Ok(ended
            .unwrap_or_else(|e| Err(QueueError::Transient(format!("worker task failed: {e}"))))?)
    }
}
