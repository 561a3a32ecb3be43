//! The gateway's own ports over TLS: HTTP/1.1 and HTTP/2, streams, new certificates under traffic, callers who are slow or
//! speak something else.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use quorate_rpc::tls::{Authority, Role, Subject};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    provider::{Step, delta, piece, stream_end, stream_head, usage},
    world::{PER_USER, World, chat_request},
};

const TIMEOUT: Duration = Duration::from_secs(30);

type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// An authority, and a folder with a certificate of it.
struct Certificates {
    authority: Authority,
    folder: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let certificates =
            Self { authority: Authority::new("test").unwrap(), folder: tempfile::tempdir().unwrap() };
        certificates.issue();
        fs::write(certificates.file("ca.pem"), certificates.authority.certificate()).unwrap();
        certificates
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new certificate in place of the old one.
    fn issue(&self) {
        let issued = self.authority.issue(&self.subject()).unwrap();
        fs::write(self.file("own.pem"), issued.certificate).unwrap();
        fs::write(self.file("own.key"), issued.key).unwrap();
    }

    fn subject(&self) -> Subject {
        Subject { name: "g1".to_owned(), role: Role::Gateway, hosts: vec!["127.0.0.1".to_owned()], days: 1 }
    }

    /// A section of the config.
    fn section(&self, name: &str, more: &str) -> String {
        let (cert, key) = (self.file("own.pem"), self.file("own.key"));
        format!("{name}: {{cert_file: '{}', key_file: '{}'{more}}}\n", cert.display(), key.display())
    }

    async fn world(&self) -> World {
        World::with(PER_USER, &(self.section("tls", "") + &self.section("http_tls", ""))).await
    }

    fn client_config(&self, with_certificate: bool) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let pem = self.authority.certificate().as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots);
        if !with_certificate {
            return config.with_no_client_auth();
        }
        let issued = self.authority.issue(&self.subject()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        config.with_client_auth_cert(chain, key).unwrap()
    }

    fn client(&self, http_2: bool, with_certificate: bool) -> HttpsClient {
        let https =
            HttpsConnectorBuilder::new().with_tls_config(self.client_config(with_certificate)).https_only();
        let https = if http_2 { https.enable_http2().build() } else { https.enable_http1().build() };
        Client::builder(TokioExecutor::new()).http2_only(http_2).build(https)
    }

    /// The certificate that a new connection sees.
    async fn seen(&self, port: u16) -> Vec<u8> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let connector = TlsConnector::from(Arc::new(self.client_config(false)));
        let stream = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

fn chat(world: &World, extra: &str) -> Request<Full<Bytes>> {
    let mut request = world.request("/v1/chat/completions", &chat_request(extra), &[]);
    let port = world.gateway.proxy_address().unwrap().port();
    *request.uri_mut() = format!("https://127.0.0.1:{port}/v1/chat/completions").parse().unwrap();
    request
}

fn stream() -> Vec<Step> {
    vec![
        stream_head(),
        piece(&delta("Hi")),
        piece(&delta(" there")),
        piece(&usage(10, 33)),
        piece("data: [DONE]\n\n"),
        stream_end(),
    ]
}

#[tokio::test]
async fn streams_come_over_both_versions_of_http() {
    let certificates = Certificates::new();
    let world = certificates.world().await;
    for (http_2, version) in [(false, http::Version::HTTP_11), (true, http::Version::HTTP_2)] {
        world.provider.plays(stream());
        let answered =
            certificates.client(http_2, false).request(chat(&world, r#","stream":true,"max_tokens":90"#));
        let answer = answered.await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains(&delta(" there")) && text.contains("[DONE]"), "{text}");
    }
    assert_eq!(world.alice(), (86, 0));
}

#[tokio::test]
async fn metrics_come_over_tls_too() {
    let certificates = Certificates::new();
    let world = certificates.world().await;
    let port = world.gateway.http_address().port();
    let request = || {
        let uri = format!("https://127.0.0.1:{port}/metrics");
        Request::get(uri).body(Full::new(Bytes::new())).unwrap()
    };
    let answer = certificates.client(false, false).request(request()).await.unwrap();
    assert_eq!(answer.status(), 200);
    // It speaks HTTP/1.1 only, and says so in the handshake: a client that takes both gets an answer.
    let tls = certificates.client_config(false);
    let both = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_all_versions().build();
    let client: HttpsClient = Client::builder(TokioExecutor::new()).build(both);
    let answer = client.request(request()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_11));
}

#[tokio::test]
async fn a_new_certificate_counts_for_new_connections_and_disturbs_no_old_one() {
    let certificates = Certificates::new();
    let world = certificates.world().await;
    let port = world.gateway.proxy_address().unwrap().port();
    // A stream that is under way.
    world.provider.plays(vec![
        stream_head(),
        piece(&delta("Hi")),
        Step::Pause,
        piece(&usage(10, 33)),
        piece("data: [DONE]\n\n"),
        stream_end(),
    ]);
    let client = certificates.client(true, false);
    let answer = client.request(chat(&world, r#","stream":true,"max_tokens":90"#)).await.unwrap();
    let old = certificates.seen(port).await;
    certificates.issue();
    let changed = async {
        while certificates.seen(port).await == old {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, changed).await.expect("the new certificate is seen");
    world.provider.go();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8(text.to_vec()).unwrap().contains("[DONE]"));
    // What cannot be used changes nothing.
    let new = certificates.seen(port).await;
    fs::write(certificates.file("own.pem"), "nothing").unwrap();
    world.provider.plays(stream());
    let answer = certificates.client(false, false).request(chat(&world, r#","stream":true,"max_tokens":90"#));
    assert_eq!(answer.await.unwrap().status(), 200);
    assert_eq!(certificates.seen(port).await, new);
}

#[tokio::test]
async fn who_speaks_plaintext_is_told_and_who_says_nothing_holds_up_nobody() {
    let certificates = Certificates::new();
    let world = certificates.world().await;
    let address = world.gateway.proxy_address().unwrap();
    // More than may be under way at the port for monitoring, and each has begun a handshake that it does not go on with.
    let mut silent = Vec::new();
    for address in [address, world.gateway.http_address()] {
        for _ in 0..100 {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(&[0x16, 3, 1]).await.unwrap();
            silent.push(tcp);
        }
    }
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut said = String::new();
    plain.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("https://"), "{said}");
    world.provider.plays(stream());
    let client = certificates.client(true, false);
    let answer = client.request(chat(&world, r#","stream":true,"max_tokens":90"#)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let uri = format!("https://127.0.0.1:{}/healthz", world.gateway.http_address().port());
    let health = certificates.client(false, false).get(uri.parse().unwrap()).await.unwrap();
    assert_eq!(health.status(), 200);
    // Nor do they stay for ever.
    let mut first = silent.remove(0);
    let closed = tokio::time::timeout(TIMEOUT, first.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "still open");
}

#[tokio::test]
async fn where_callers_must_show_a_certificate_no_other_gets_in() {
    let certificates = Certificates::new();
    let ca = format!(", client_ca_file: '{}'", certificates.file("ca.pem").display());
    let world = World::with(PER_USER, &certificates.section("tls", &ca)).await;
    world.provider.plays(stream());
    let request = || chat(&world, r#","stream":true,"max_tokens":90"#);
    assert!(certificates.client(true, false).request(request()).await.is_err());
    let answer = certificates.client(true, true).request(request()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start() {
    let certificates = Certificates::new();
    let folder = certificates.folder.path().display();
    let text = format!(
        "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\n\
         http_tls: {{cert_file: '{folder}/own.pem', key_file: '{folder}/none.key'}}\n"
    );
    let config: crate::GatewayConfig = serde_yaml_ng::from_str(&text).unwrap();
    let listeners = crate::Gateway::bind(&config).unwrap();
    let error = crate::Gateway::start(config, listeners).unwrap_err().to_string();
    assert!(error.contains("http_tls.key_file") && error.contains("none.key"), "{error}");
}

#[tokio::test]
async fn the_rate_limit_service_asks_callers_for_a_certificate() {
    use quorate_rpc::rls::{RateLimitRequest, rate_limit_service_client::RateLimitServiceClient};
    use quorate_rpc::tls::{Names, Security, TlsFiles};
    let certificates = Certificates::new();
    let (ca_file, cert_file, key_file) =
        (certificates.file("ca.pem"), certificates.file("own.pem"), certificates.file("own.key"));
    let tls = certificates.section("tls", &format!(", client_ca_file: '{}'", ca_file.display()));
    let world = World::with(PER_USER, &format!("rate_limit:\n  listen: '127.0.0.1:0'\n  {tls}")).await;
    let address = world.gateway.rate_limit_address().unwrap().to_string();
    let files = TlsFiles { ca_file, cert_file, key_file }.named(Names::CLUSTER_TLS);
    let mut codes = Vec::new();
    for security in [Security::with_others(files).unwrap(), Security::Plain] {
        let channel = quorate_rpc::channel(&address, &security).unwrap();
        let asked = RateLimitServiceClient::new(channel).should_rate_limit(RateLimitRequest::default()).await;
        codes.push(asked.unwrap_err().code());
    }
    // Heard, and found empty; not heard at all.
    assert_eq!(codes[0], tonic::Code::InvalidArgument);
    assert_ne!(codes[1], tonic::Code::InvalidArgument);
}
