//! The way to a backend over real sockets: TLS with an authority of one's own, proxies, shared connections.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::Full;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use quorate_policy::runtime::{Endpoint, ProviderKind, SecretRef, TlsSpec};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Barrier,
};
use tokio_rustls::TlsAcceptor;

use super::{
    policies::spec,
    provider::{FakeProvider, Step, answer},
};
use crate::{
    auth::Env,
    backend::Backend,
    config::{BackendConfig, SecretsConfig, Timeouts},
    secrets::Secrets,
    upstream::{SendError, Upstream},
};

const NAME: &str = "llm.internal";

/// An authority and a server with a certificate of it for [`NAME`], which answers everything with 200.
struct TlsServer {
    port: u16,
    ca: tempfile::NamedTempFile,
    connections: Arc<AtomicUsize>,
}

fn authority() -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params, KeyPair::generate().unwrap())
}

/// Answers the first request, and then once `at_once` requests are there at the same time.
async fn respond_http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, at_once: Arc<Barrier>) {
    let asked = AtomicUsize::new(0);
    let service = service_fn(move |_| {
        let at_once = (asked.fetch_add(1, Ordering::Relaxed) > 0).then(|| Arc::clone(&at_once));
        async move {
            if let Some(at_once) = at_once {
                at_once.wait().await;
            }
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
        }
    });
    let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    let _ = serving.await;
}

async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
        // One request without a body at a time.
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

impl TlsServer {
    async fn start() -> Self {
        Self::with(None).await
    }

    /// `http2`: speaks nothing else, as [`respond_http2`].
    async fn with(http2: Option<Arc<Barrier>>) -> Self {
        let (params, key) = authority();
        let ca = params.self_signed(&key).unwrap();
        let server_key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([NAME.to_owned()])
            .unwrap()
            .signed_by(&server_key, &Issuer::new(params, key))
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
            )
            .unwrap();
        if http2.is_some() {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, http2) = (acceptor.clone(), http2.clone());
                tokio::spawn(async move {
                    match (acceptor.accept(stream).await, http2) {
                        (Ok(stream), None) => respond(stream).await,
                        (Ok(stream), Some(at_once)) => respond_http2(stream, at_once).await,
                        (Err(_), _) => {}
                    }
                });
            }
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ca.pem()).unwrap();
        Self { port, ca: file, connections }
    }

    fn ca(&self) -> String {
        format!("ca_file: '{}'", self.ca.path().display())
    }
}

/// A proxy that notes the first line and the authorization of what it is asked, and knows every name as this machine.
#[derive(Default)]
struct TestProxy {
    heads: Mutex<Vec<String>>,
}

impl TestProxy {
    async fn start() -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Arc::new(Self::default());
        let serving = Arc::clone(&proxy);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let proxy = Arc::clone(&serving);
                tokio::spawn(async move { proxy.serve(stream).await });
            }
        });
        (proxy, port)
    }

    async fn serve(&self, mut client: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = client.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        self.heads.lock().push(head.clone());
        let target = head.split(' ').nth(1).unwrap_or_default();
        let Some(tunnel) = head.strip_prefix("CONNECT ").and(Some(target)) else {
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
            return;
        };
        if !head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6ahvzaa==") {
            let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
            return;
        }
        let port: u16 = tunnel.rsplit(':').next().unwrap().parse().unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }

    fn lines(&self) -> Vec<String> {
        self.heads.lock().iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

fn backend(url: &str, more: &str) -> Backend {
    let text = format!("{{name: b, provider: OpenAI, base_url: '{url}'{more}}}");
    let config: BackendConfig = serde_yaml_ng::from_str(&text).unwrap();
    Backend::configured(&config, &Env::of(&[])).unwrap()
}

fn upstream() -> Upstream {
    Upstream::new(&Timeouts::default()).unwrap()
}

async fn get(upstream: &Upstream, backend: &Backend) -> Result<u16, SendError> {
    let sent = upstream.send(backend, Method::GET, ("/models", None), HeaderMap::new(), Bytes::new()).await?;
    let status = sent.status().as_u16();
    // Read to its end, so that the connection is free again.
    http_body_util::BodyExt::collect(sent.into_body()).await.unwrap();
    Ok(status)
}

fn not_sent(sent: Result<u16, SendError>) -> String {
    match sent {
        Err(SendError::NotSent(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_authority_and_a_name_of_ones_own() {
    let server = TlsServer::start().await;
    let url = format!("https://127.0.0.1:{}", server.port);
    let upstream = upstream();
    let named = format!(", tls_server_name: {NAME}");
    let fine = backend(&url, &format!("{named}, {}", server.ca()));
    assert_eq!(get(&upstream, &fine).await.unwrap(), 200);

    let error = not_sent(get(&upstream, &backend(&url, &named)).await);
    assert!(error.contains("UnknownIssuer") && error.contains("ca_file"), "{error}");
    let other = TlsServer::start().await;
    let error = not_sent(get(&upstream, &backend(&url, &format!("{named}, {}", other.ca()))).await);
    assert!(error.contains("invalid peer certificate") && error.contains("caCertificateRefs"), "{error}");
    let error = not_sent(get(&upstream, &backend(&url, &format!(", {}", server.ca()))).await);
    assert!(error.contains("tls_server_name"), "{error}");
    let config: BackendConfig =
        serde_yaml_ng::from_str("{name: b, provider: OpenAI, base_url: 'https://h', ca_file: /no/such/file}")
            .unwrap();
    assert!(Backend::configured(&config, &Env::of(&[])).unwrap_err().contains("/no/such/file"));
}

#[tokio::test]
async fn a_policy_names_the_authority_and_the_name() {
    let server = TlsServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("internal-ca");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(server.ca.path(), folder.join("ca.crt")).unwrap();
    let secrets = SecretsConfig { dir: dir.path().to_owned(), ..SecretsConfig::default() };
    let secrets = Secrets::open(&secrets).unwrap();
    let described = |name: &str, server_name: &str| {
        let mut spec = spec("b", ProviderKind::OpenAI);
        spec.endpoint = Some(Endpoint { host: "127.0.0.1".to_owned(), port: server.port, tls: true });
        let root = SecretRef { namespace: "ns".to_owned(), name: name.to_owned(), key: "ca.crt".to_owned() };
        spec.tls = Some(TlsSpec { server_name: Some(server_name.to_owned()), roots: vec![root] });
        Backend::described(&spec, &secrets)
    };
    let upstream = upstream();
    assert_eq!(get(&upstream, &described("internal-ca", NAME).unwrap()).await.unwrap(), 200);
    let error = not_sent(get(&upstream, &described("internal-ca", "other.internal").unwrap()).await);
    assert!(error.contains("hostname of a BackendTLSPolicy"), "{error}");
    let error = described("no-such-ca", NAME).unwrap_err().to_string();
    assert!(error.contains("ns/no-such-ca, key ca.crt"), "{error}");
}

#[tokio::test]
async fn backends_with_the_same_settings_share_connections_and_others_do_not() {
    // HTTP/2: a connection takes the next request at once, so that their number says who shares.
    let server = TlsServer::with(Some(Arc::new(Barrier::new(1)))).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    let same = format!(", tls_server_name: {NAME}, {}", server.ca());
    let upstream = upstream();
    let (first, second) = (backend(&url, &same), backend(&url, &same));
    for backend in [&first, &second, &first] {
        assert_eq!(get(&upstream, backend).await.unwrap(), 200);
        assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    }
    let own = backend(&url, &format!("{same}, timeouts: {{connect_ms: 5000}}"));
    for backend in [&own, &first] {
        assert_eq!(get(&upstream, backend).await.unwrap(), 200);
        assert_eq!(server.connections.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn requests_share_a_connection_of_http2() {
    const AT_ONCE: usize = 4;
    let server = TlsServer::with(Some(Arc::new(Barrier::new(AT_ONCE)))).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    let backend = Arc::new(backend(&url, &format!(", tls_server_name: {NAME}, {}", server.ca())));
    let upstream = Arc::new(upstream());
    assert_eq!(get(&upstream, &backend).await.unwrap(), 200);
    let asking: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (backend, upstream) = (Arc::clone(&backend), Arc::clone(&upstream));
            tokio::spawn(async move { get(&upstream, &backend).await.unwrap() })
        })
        .collect();
    for one in asking {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let server = TlsServer::with(Some(Arc::new(Barrier::new(1)))).await;
    let (proxy, port) = TestProxy::start().await;
    let url = format!("https://{NAME}:{}/v1", server.port);
    let with =
        |user: &str| backend(&url, &format!(", proxy: 'http://{user}127.0.0.1:{port}', {}", server.ca()));
    let upstream = upstream();
    let tunnelled = with("me:hush@");
    for _ in 0..2 {
        assert_eq!(get(&upstream, &tunnelled).await.unwrap(), 200);
    }
    assert_eq!(proxy.lines(), [format!("CONNECT {NAME}:{} HTTP/1.1", server.port)]);
    assert!(!format!("{tunnelled:?}").contains("hush"));
    let error = not_sent(get(&upstream, &with("")).await);
    assert!(error.contains("proxy 127.0.0.1") && error.contains("authorization required"), "{error}");
}

#[tokio::test]
async fn http_names_the_whole_url_to_a_proxy() {
    let (proxy, port) = TestProxy::start().await;
    let plain =
        backend("http://provider.example:8000/v1", &format!(", proxy: 'http://me:hush@127.0.0.1:{port}'"));
    assert_eq!(get(&upstream(), &plain).await.unwrap(), 200);
    assert_eq!(proxy.lines(), ["GET http://provider.example:8000/v1/models HTTP/1.1"]);
    assert!(proxy.heads.lock()[0].contains("Basic bWU6aHVzaA=="));
}

#[tokio::test]
async fn the_environments_proxy_is_not_taken_to_this_machine() {
    let (proxy, port) = TestProxy::start().await;
    let environment = hyper_util::client::proxy::matcher::Matcher::builder()
        .all(format!("http://127.0.0.1:{port}"))
        .build();
    let upstream = Upstream::with(&Timeouts::default(), environment).unwrap();
    let provider = FakeProvider::start().await;
    provider.plays([answer("200 OK", "{}")]);
    assert_eq!(get(&upstream, &backend(&provider.base_url, "")).await.unwrap(), 200);
    assert!(proxy.lines().is_empty());
    assert_eq!(get(&upstream, &backend("http://provider.example/v1", "")).await.unwrap(), 200);
    assert_eq!(proxy.lines().len(), 1);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = backend(&format!("http://{free}/v1"), ", proxy: none");
    assert!(matches!(get(&upstream, &gone).await, Err(SendError::NotSent(_))));
}

#[tokio::test]
async fn a_backends_own_patience() {
    let provider = FakeProvider::start().await;
    provider.plays([Step::UntilClosed]);
    let hasty = backend(&provider.base_url, ", timeouts: {first_byte_ms: 50}");
    assert!(matches!(get(&upstream(), &hasty).await, Err(SendError::TimedOut)));
    // Accepts, and never says anything of TLS: the handshake is part of connecting.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let error = not_sent(get(&upstream(), &backend(&url, ", timeouts: {connect_ms: 50}")).await);
    assert!(error.contains("connecting took too long"), "{error}");
}
