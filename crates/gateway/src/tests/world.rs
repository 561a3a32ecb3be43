//! A gateway with everything around it, and a client.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use quorate_ledger::{KeyRecord, ProviderView};
use quorate_policy::runtime::CompiledPolicy;
use quorate_rpc::{Keys, Providers};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{keeper::LedgerKeeper, provider::FakeProvider};
use crate::{
    config::GatewayConfig,
    core::{Core, Followed},
    gateway::Gateway,
    lower,
    metrics::Metrics,
    policy::{ActivePolicy, Sources},
};

/// 250 tokens a week for each user.
pub(crate) const PER_USER: &str = "
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: per-user}
spec:
  subject: [{header: x-user-id}]
  limit: {tokens: 250}
  window: Week
";

pub(crate) fn per_user(tokens: u64) -> String {
    PER_USER.replace("250", &tokens.to_string())
}

pub(crate) struct World {
    pub(crate) keeper: Arc<LedgerKeeper>,
    pub(crate) provider: Arc<FakeProvider>,
    pub(crate) core: Arc<Core>,
    pub(crate) gateway: Gateway,
    /// Decides which policy is in force at the gateway.
    pub(crate) policies: watch::Sender<Option<Arc<ActivePolicy>>>,
    pub(crate) keys: watch::Sender<Keys>,
    /// Follows the ledger, unless it is told to stand still.
    pub(crate) watch: Arc<FollowedLedger>,
}

/// What a watch would tell: the circuits after every command.
pub(crate) struct FollowedLedger {
    providers: watch::Sender<Providers>,
    keeper: Arc<LedgerKeeper>,
    still: AtomicBool,
}

impl FollowedLedger {
    fn start(keeper: &Arc<LedgerKeeper>) -> Arc<Self> {
        let (providers, keeper) = (watch::Sender::default(), Arc::clone(keeper));
        let watch = Arc::new(Self { providers, keeper, still: AtomicBool::new(false) });
        let (weak, mut applied) = (Arc::downgrade(&watch), watch.keeper.applied());
        tokio::spawn(async move {
            while applied.changed().await.is_ok() {
                let Some(watch) = weak.upgrade() else { return };
                if !watch.still.load(Ordering::SeqCst) {
                    watch.tell();
                }
            }
        });
        watch
    }

    /// Nothing comes through until it is told to go on.
    pub(crate) fn stand_still(&self, still: bool) {
        self.still.store(still, Ordering::SeqCst);
        if !still {
            self.tell();
        }
    }

    fn tell(&self) {
        let mut known = Providers::default();
        for view in self.keeper.providers() {
            let models = Arc::make_mut(&mut known).entry(view.backend.clone()).or_default();
            models.insert(view.model.clone(), view);
        }
        self.providers.send_replace(known);
    }

    /// Waits until the gateway has been told of such a circuit.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&ProviderView) -> bool) {
        let mut providers = self.providers.subscribe();
        let told = providers.wait_for(|known| known.values().flat_map(|models| models.values()).any(&is_so));
        let told = tokio::time::timeout(Duration::from_secs(20), told).await;
        assert!(matches!(told, Ok(Ok(_))), "never told: {what}");
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn error(&self) -> serde_json::Value {
        serde_json::from_slice::<serde_json::Value>(&self.body).unwrap()["error"].clone()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A chat request of a few tokens.
pub(crate) fn chat_request(extra: &str) -> String {
    format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"Say hello"}}]{extra}}}"#)
}

pub(crate) fn http_client() -> Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn config(base_url: &str, more: &str) -> String {
    format!(
        "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\n\
         backends: [{{name: fake, provider: OpenAI, base_url: '{base_url}'}}]\n{more}"
    )
}

impl World {
    pub(crate) async fn new(policy: &str) -> Self {
        Self::with(policy, "").await
    }

    /// `more`: lines of the config file, `backend:` keys first.
    pub(crate) async fn with(policy: &str, more: &str) -> Self {
        Self::configured(policy, |base_url| config(base_url, more)).await
    }

    /// Another gateway of the same cluster.
    pub(crate) async fn beside(&self, policy: &str, more: &str) -> Self {
        let keeper = Arc::clone(&self.keeper);
        Self::of(keeper, lower::compile(policy).unwrap(), |base_url| config(base_url, more)).await
    }

    pub(crate) async fn configured(policy: &str, config: impl FnOnce(&str) -> String) -> Self {
        Self::compiled(lower::compile(policy).unwrap(), config).await
    }

    /// With a policy that files cannot say yet, or that is easier said in types.
    pub(crate) async fn compiled(policy: CompiledPolicy, config: impl FnOnce(&str) -> String) -> Self {
        Self::of(Arc::new(LedgerKeeper::new()), policy, config).await
    }

    async fn of(
        keeper: Arc<LedgerKeeper>,
        policy: CompiledPolicy,
        config: impl FnOnce(&str) -> String,
    ) -> Self {
        let provider = FakeProvider::start().await;
        let config: GatewayConfig = serde_yaml_ng::from_str(&config(&provider.base_url)).unwrap();
        config.check().unwrap();
        keeper.put_policy(&policy);
        let sources = Arc::new(Sources::open(&config).unwrap());
        let policies = watch::Sender::new(Some(Arc::new(ActivePolicy::new(1, policy, &sources))));
        let keys = watch::Sender::new(Keys::default());
        let watch = FollowedLedger::start(&keeper);
        let followed = Followed {
            policy: policies.subscribe(),
            keys: keys.subscribe(),
            providers: watch.providers.subscribe(),
        };
        let listeners = Gateway::bind(&config).unwrap();
        let metrics = Arc::new(Metrics::new());
        let core = Core::new(config, sources, Arc::clone(&keeper) as _, followed, metrics).unwrap();
        let core = Arc::new(core);
        let (_, synced) = watch::channel(true);
        let gateway = Gateway::serve(Arc::clone(&core), listeners, synced, CancellationToken::new()).unwrap();
        Self { keeper, provider, core, gateway, policies, keys, watch }
    }

    /// At the gateway and in the ledger.
    pub(crate) fn put_policy(&self, version: u64, policy: CompiledPolicy) {
        self.keeper.put_policy(&policy);
        let active = ActivePolicy::new(version, policy, &self.core.sources);
        self.policies.send_replace(Some(Arc::new(active)));
    }

    pub(crate) fn put_key(&self, key: KeyRecord) {
        self.keys.send_modify(|keys| {
            Arc::make_mut(keys).insert(key.id.clone(), Arc::new(key));
        });
    }

    pub(crate) fn request(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(if body.is_empty() { Method::GET } else { Method::POST })
            .uri(format!("http://{}{path}", self.gateway.proxy_address().unwrap()))
            .header("x-user-id", "alice");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
    }

    /// Until the head of the answer is there.
    pub(crate) async fn open(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        http_client().request(self.request(path, body, headers)).await.unwrap()
    }

    pub(crate) async fn ask(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let (parts, body) = self.open(path, body, headers).await.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        Answer { status: parts.status, headers: parts.headers, trailers, body: collected.to_bytes() }
    }

    /// With these headers only.
    pub(crate) async fn ask_bare(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.request(path, body, &[]);
        request.headers_mut().remove("x-user-id");
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (parts, body) = http_client().request(request).await.unwrap().into_parts();
        let collected = body.collect().await.unwrap();
        Answer { status: parts.status, headers: parts.headers, trailers: None, body: collected.to_bytes() }
    }

    /// (spent, reserved) of an account of the tenant `default`, in whole units.
    pub(crate) fn account(&self, budget: &str, subject: &str) -> (u64, u64) {
        let account = self.keeper.account("default", budget, subject);
        account.map_or((0, 0), |account| (account.spent.units_floor(), account.reserved.units_floor()))
    }

    /// What of alice's spending is marked as an estimate, in tokens.
    pub(crate) fn estimated(&self) -> u64 {
        let account = self.keeper.account("default", "per-user", "alice");
        account.map_or(0, |account| account.estimated.units_floor())
    }

    /// A chat request of alice.
    pub(crate) async fn chat(&self, extra: &str) -> Answer {
        self.ask("/v1/chat/completions", &chat_request(extra), &[]).await
    }

    /// (spent, reserved) of alice's account, in tokens.
    pub(crate) fn alice(&self) -> (u64, u64) {
        self.account("per-user", "alice")
    }

    /// Waits until nothing is reserved any more (and something was charged or released).
    pub(crate) async fn resolved(&self) {
        self.keeper
            .until("all reservations ended", |ledger| ledger.reservations("default").count() == 0)
            .await;
    }

    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.core.metrics_text();
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}
