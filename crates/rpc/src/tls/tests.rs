//! TLS as its two ends see it: bad files, certificates that are replaced, callers that are slow or speak something else.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;

use super::*;

pub(super) fn subject(name: &str, role: Role) -> Subject {
    Subject { name: name.to_owned(), role, hosts: vec!["127.0.0.1".to_owned()], days: 1 }
}

fn write(folder: &Path, authority: &Authority, subject: &Subject) -> TlsSource {
    let issued = authority.issue(subject).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let files = TlsFiles {
        ca_file: file("ca.crt", authority.certificate()),
        cert_file: file("own.crt", &issued.certificate),
        key_file: file("own.key", &issued.key),
    };
    files.named(Names::TLS)
}

struct Side {
    _folder: TempDir,
    source: TlsSource,
}

fn side(authority: &Authority, name: &str, role: Role) -> Side {
    let folder = tempfile::tempdir().unwrap();
    let source = write(folder.path(), authority, &subject(name, role));
    Side { _folder: folder, source }
}

struct Listening {
    port: u16,
    tls: Arc<ServerTls>,
    connections: std::pin::Pin<Box<dyn tokio_stream::Stream<Item = std::io::Result<PeerStream>> + Send>>,
}

async fn listen(source: &TlsSource, clients: ClientCertificates, protocol: Protocol) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = Arc::new(ServerTls::new(source.clone(), clients, protocol).unwrap());
    Listening { port, connections: Box::pin(incoming(listener, tls.clone())), tls }
}

/// What the caller hears, having said hello.
async fn hello(client: &ClientTls, port: u16) -> std::io::Result<String> {
    let mut stream = client.connect("127.0.0.1", port).await?;
    let mut heard = String::new();
    stream.write_all(b"hello").await?;
    stream.read_to_string(&mut heard).await?;
    Ok(heard)
}

/// Greets the next caller by name; returns it.
async fn greet(listening: &mut Listening) -> String {
    let mut stream = listening.connections.next().await.unwrap().unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    let name = stream.peer().identity.as_ref().map_or("nobody".to_owned(), |identity| identity.described());
    stream.write_all(name.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    name
}

#[test]
fn bad_files_are_refused_with_their_setting_and_what_to_do() {
    let authority = Authority::new("a").unwrap();
    let other = authority.issue(&subject("other", Role::Node)).unwrap();
    let over = authority.issue(&Subject { days: 0, ..subject("over", Role::Node) }).unwrap();
    let table: [(&str, Option<&str>, &str, &str); 9] = [
        ("ca.crt", None, "tls.ca_file", "does it exist"),
        ("ca.crt", Some(""), "tls.ca_file", "holds no certificate"),
        ("ca.crt", Some("-----BEGIN CERTIFICATE-----\n!\n"), "tls.ca_file", "is no PEM"),
        (
            "ca.crt",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "tls.ca_file",
            "cannot be used",
        ),
        ("own.crt", Some(&other.key), "tls.cert_file", "holds no certificate"),
        ("own.key", Some(&other.key), "tls.key_file", "does not belong to the certificate"),
        ("own.key", Some(&other.certificate), "tls.key_file", "holds no private key"),
        ("own.key", None, "tls.key_file", "may this user read it"),
        ("own.crt", Some(&over.certificate), "tls.cert_file", "quorate certs issue"),
    ];
    for (file, text, setting, said) in table {
        let side = side(&authority, "n1", Role::Node);
        let path = side.source.cert_file.parent().unwrap().join(file);
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = ClientTls::new(side.source.clone()).unwrap_err();
        let shown = error.to_string();
        assert_eq!((error.setting, &error.file), (setting, &path), "{shown}");
        assert!(shown.contains(said), "{shown}");
        let error = ServerTls::new(side.source.clone(), ClientCertificates::Required, Protocol::Grpc);
        assert_eq!(error.unwrap_err().to_string(), shown);
    }
}

#[test]
fn a_key_that_all_may_read_is_noticed() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = Authority::new("a").unwrap();
    let side = side(&authority, "n1", Role::Node);
    for (mode, exposed) in [(0o600, false), (0o400, false), (0o640, false), (0o644, true), (0o602, true)] {
        fs::set_permissions(&side.source.key_file, fs::Permissions::from_mode(mode)).unwrap();
        let contents = material::Contents::read(&side.source).unwrap();
        assert_eq!(contents.key_is_exposed, exposed, "{mode:o}");
    }
}

/// As when it went through a variable or a form that took the line breaks away.
#[test]
fn an_error_says_nothing_of_a_mangled_key() {
    let authority = Authority::new("a").unwrap();
    for (breaks, at_most) in [(" ", usize::MAX), ("", usize::MAX), ("", 1), ("\\n", usize::MAX)] {
        let side = side(&authority, "n1", Role::Node);
        let key = fs::read_to_string(&side.source.key_file).unwrap();
        let mangled = key.replacen('\n', breaks, at_most);
        fs::write(&side.source.key_file, &mangled).unwrap();
        let error = ClientTls::new(side.source.clone()).unwrap_err();
        assert_eq!(error.setting, "tls.key_file");
        let twice = Authority::from_pem(authority.certificate(), &mangled).unwrap_err();
        let shown = Shown::all(mangled.as_bytes()).unwrap_err();
        let secret = &key.lines().nth(1).unwrap()[..16];
        let bytes = format!("{:?}", secret.as_bytes());
        for said in [format!("{error} {error:?}"), format!("{twice} {twice:?}"), shown] {
            assert!(!said.contains(secret) && !said.contains(bytes.trim_matches(['[', ']'])), "{said}");
        }
    }
}

#[test]
fn a_certificate_says_who_and_what_for() {
    let authority = Authority::new("a").unwrap();
    for role in Role::ALL {
        let issued = authority.issue(&subject("alice", role)).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate.as_bytes()).unwrap();
        let identity = Identity::of(&pem.contents).unwrap();
        assert_eq!(identity, Identity { name: "alice".to_owned(), roles: vec![role] });
        assert_eq!(identity.described(), format!("alice ({role})"));
    }
    for name in ["", " ", "a\nb", &"x".repeat(129)] {
        let issued = authority.issue(&subject(name, Role::Read)).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate.as_bytes()).unwrap();
        assert!(Identity::of(&pem.contents).unwrap_err().contains("CN"));
    }
    assert!(Identity::of(b"junk").unwrap_err().contains("X.509"));
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let authority = Authority::new("a").unwrap();
    let (server, client) = (side(&authority, "n1", Role::Node), side(&authority, "g1", Role::Gateway));
    let mut listening = listen(&server.source, ClientCertificates::Required, Protocol::Grpc).await;
    let client = ClientTls::new(client.source).unwrap();
    let (heard, _) = tokio::join!(hello(&client, listening.port), greet(&mut listening));
    assert_eq!(heard.unwrap(), "g1 (gateway)");
}

#[tokio::test]
async fn strangers_are_refused_on_either_side() {
    let (ours, theirs) = (Authority::new("ours").unwrap(), Authority::new("theirs").unwrap());
    let server = side(&ours, "n1", Role::Node);
    let listening = listen(&server.source, ClientCertificates::Required, Protocol::Grpc).await;
    // The caller does not believe the node.
    let stranger = side(&theirs, "g1", Role::Gateway);
    let error = hello(&ClientTls::new(stranger.source.clone()).unwrap(), listening.port).await.unwrap_err();
    assert!(explain(&error).unwrap().contains("no authority of ours"), "{error}");
    // The node does not believe the caller.
    fs::write(stranger.source.ca_file.as_ref().unwrap(), ours.certificate()).unwrap();
    let error = hello(&ClientTls::new(stranger.source.clone()).unwrap(), listening.port).await.unwrap_err();
    assert!(explain(&error).unwrap().contains("refused our certificate"), "{error}");
    // The caller shows none.
    let mut roots = rustls::RootCertStore::empty();
    let (_, pem) = x509_parser::pem::parse_x509_pem(ours.certificate().as_bytes()).unwrap();
    roots.add(pem.contents.into()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(material::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(("127.0.0.1", listening.port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    // The certificate is for another host.
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = Subject { hosts: vec!["n1.example".to_owned()], ..subject("n1", Role::Node) };
    let listening =
        listen(&write(folder.path(), &ours, &elsewhere), ClientCertificates::Required, Protocol::Grpc).await;
    let client = side(&ours, "g1", Role::Gateway);
    let error = hello(&ClientTls::new(client.source.clone()).unwrap(), listening.port).await.unwrap_err();
    assert!(explain(&error).unwrap().contains("certificate is refused"), "{error}");
}

#[tokio::test]
async fn an_idle_connection_holds_up_nobody() {
    let authority = Authority::new("a").unwrap();
    let (server, client) = (side(&authority, "n1", Role::Node), side(&authority, "g1", Role::Gateway));
    let mut listening = listen(&server.source, ClientCertificates::Required, Protocol::Grpc).await;
    let address = ("127.0.0.1", listening.port);
    let idle = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let client = ClientTls::new(client.source).unwrap();
    let (heard, _) = tokio::join!(hello(&client, listening.port), greet(&mut listening));
    assert_eq!(heard.unwrap(), "g1 (gateway)");
    drop(idle);
}

/// In the time of the paused clock.
#[tokio::test(start_paused = true)]
async fn many_that_stall_give_way_to_one_that_does_not() {
    let authority = Authority::new("a").unwrap();
    let (server, client) = (side(&authority, "n1", Role::Node), side(&authority, "g1", Role::Gateway));
    let mut listening = listen(&server.source, ClientCertificates::Required, Protocol::Grpc).await;
    let mut idle = Vec::new();
    for _ in 0..incoming::HANDSHAKES_MAX {
        idle.push(TcpStream::connect(("127.0.0.1", listening.port)).await.unwrap());
    }
    let started = tokio::time::Instant::now();
    let client = ClientTls::new(client.source).unwrap();
    let (heard, _) = tokio::join!(hello(&client, listening.port), greet(&mut listening));
    assert_eq!(heard.unwrap(), "g1 (gateway)");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_deadline() {
    let authority = Authority::new("a").unwrap();
    let server = side(&authority, "n1", Role::Node);
    let tls = ServerTls::new(server.source, ClientCertificates::Required, Protocol::Grpc).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (idle, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let error = tls.accept(accepted.unwrap().0).await.unwrap_err();
    assert!(matches!(error, HandshakeError::TimedOut), "{error}");
    assert_eq!(tls.refused(), 1);
    drop(idle);
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_that_opened_it() {
    let authority = Authority::new("a").unwrap();
    let (server, client) = (side(&authority, "n1", Role::Node), side(&authority, "g1", Role::Gateway));
    let mut listening = listen(&server.source, ClientCertificates::Required, Protocol::Grpc).await;
    let client = ClientTls::new(client.source).unwrap();
    let (caller, served) =
        tokio::join!(client.connect("127.0.0.1", listening.port), listening.connections.next());
    let (mut caller, mut served) = (caller.unwrap(), served.unwrap().unwrap());
    let mut heard = [0; 5];
    caller.write_all(b"hello").await.unwrap();
    served.read_exact(&mut heard).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(25 * 60 * 60)).await;
    caller.write_all(b"hello").await.unwrap();
    let error = served.read_exact(&mut heard).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn plaintext_is_refused_in_its_own_words() {
    let authority = Authority::new("a").unwrap();
    let server = side(&authority, "n1", Role::Node);
    for (protocol, sent, heard) in [
        (Protocol::Grpc, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "this port speaks TLS"),
        (Protocol::Http, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "this port speaks TLS"),
        (Protocol::Http, "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        let listening = listen(&server.source, ClientCertificates::None, protocol).await;
        let mut caller = TcpStream::connect(("127.0.0.1", listening.port)).await.unwrap();
        caller.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        caller.read_to_end(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer).contains(heard), "{answer:?}");
    }
}

#[tokio::test]
async fn a_plain_client_is_told_that_the_node_speaks_tls_and_the_other_way_round() {
    let authority = Authority::new("a").unwrap();
    let server = side(&authority, "n1", Role::Node);
    let listening = listen(&server.source, ClientCertificates::Required, Protocol::Grpc).await;
    let address = format!("127.0.0.1:{}", listening.port);
    let channel = crate::channel(&address, &Security::Plain).unwrap();
    let status = crate::admin::admin_client::AdminClient::new(channel)
        .list_gateways(crate::admin::ListGatewaysRequest {})
        .await
        .unwrap_err();
    assert!(crate::explain(&status).contains("the node speaks TLS"), "{status:?}");
    assert!(!crate::error::is_about_the_node(&status), "no other node would take it");

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
    });
    let channel = crate::channel(&address, &Security::mutual(server.source.clone()).unwrap()).unwrap();
    let status = crate::admin::admin_client::AdminClient::new(channel)
        .list_gateways(crate::admin::ListGatewaysRequest {})
        .await
        .unwrap_err();
    assert!(crate::explain(&status).contains("the node speaks plaintext"), "{status:?}");
}

#[tokio::test]
async fn only_a_node_is_taken_for_one() {
    let authority = Authority::new("a").unwrap();
    let server = side(&authority, "g1", Role::Gateway);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = ServerTls::new(server.source.clone(), ClientCertificates::Required, Protocol::Grpc).unwrap();
    let mut connections = Box::pin(incoming(listener, Arc::new(tls)));
    let spoken = tokio::spawn(async move {
        let mut stream = connections.next().await.unwrap().unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let client = side(&authority, "alice", Role::Admin);
    let channel = crate::channel(&address, &Security::mutual(client.source).unwrap()).unwrap();
    let status = crate::admin::admin_client::AdminClient::new(channel)
        .list_gateways(crate::admin::ListGatewaysRequest {})
        .await
        .unwrap_err();
    assert!(crate::explain(&status).contains("not one of a node (O=quorate:node): it is of g1 (gateway)"));
    spoken.await.unwrap();
}

#[test]
fn an_authority_goes_on_from_its_files() {
    let made = Authority::new("a").unwrap();
    let again = Authority::from_pem(made.certificate(), &made.key()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = write(folder.path(), &again, &subject("n1", Role::Node));
    let shown = &Shown::all(&fs::read(&source.cert_file).unwrap()).unwrap()[0];
    assert_eq!((shown.name.as_str(), shown.issuer.as_str(), shown.is_authority), ("n1", "a", false));
    assert_eq!((&shown.roles[..], &shown.hosts[..]), (&[Role::Node][..], &["127.0.0.1".to_owned()][..]));
    assert!(Shown::all(made.certificate().as_bytes()).unwrap()[0].is_authority);
    ClientTls::new(source).unwrap();
    let other = Authority::new("b").unwrap();
    let error = Authority::from_pem(made.certificate(), &other.key()).unwrap_err().to_string();
    assert!(error.contains("does the key belong to the certificate"), "{error}");
    let error =
        made.issue(&Subject { hosts: vec!["a b".to_owned(), "é".to_owned()], ..subject("x", Role::Node) });
    assert!(error.is_err(), "{error:?}");
    assert!(Shown::all(b"").unwrap_err().contains("no certificate"));
}

#[tokio::test]
async fn new_files_count_at_once_and_bad_ones_do_not() {
    let authority = Authority::new("a").unwrap();
    let (server, client) = (side(&authority, "n1", Role::Node), side(&authority, "old", Role::Gateway));
    let mut listening = listen(&server.source, ClientCertificates::Required, Protocol::Grpc).await;
    let tls = ClientTls::new(client.source.clone()).unwrap();

    // Another certificate of the same authority.
    write(client.source.cert_file.parent().unwrap(), &authority, &subject("new", Role::Admin));
    tls.look_now();
    let (heard, _) = tokio::join!(hello(&tls, listening.port), greet(&mut listening));
    assert_eq!((heard.unwrap().as_str(), tls.reload_failures()), ("new (admin)", 0));

    // A key that belongs to nothing: what was good stays, and the failure counts once.
    let other = authority.issue(&subject("x", Role::Node)).unwrap();
    fs::write(&client.source.key_file, &other.key).unwrap();
    tls.look_now();
    tls.look_now();
    let (heard, _) = tokio::join!(hello(&tls, listening.port), greet(&mut listening));
    assert_eq!((heard.unwrap().as_str(), tls.reload_failures()), ("new (admin)", 1));

    // Another authority on both sides.
    let next = Authority::new("b").unwrap();
    write(client.source.cert_file.parent().unwrap(), &next, &subject("next", Role::Read));
    write(server.source.cert_file.parent().unwrap(), &next, &subject("n1", Role::Node));
    tls.look_now();
    listening.tls.look_now();
    let (heard, _) = tokio::join!(hello(&tls, listening.port), greet(&mut listening));
    assert_eq!(heard.unwrap(), "next (read)");
}

#[tokio::test]
async fn a_client_certificate_may_be_left_out_where_it_is_optional() {
    let authority = Authority::new("a").unwrap();
    let server = side(&authority, "gw", Role::Gateway);
    for (clients, heard) in
        [(ClientCertificates::Optional, "g1 (read)"), (ClientCertificates::None, "nobody")]
    {
        let mut listening = listen(&server.source, clients, Protocol::Http).await;
        let client = ClientTls::new(side(&authority, "g1", Role::Read).source).unwrap();
        let (said, _) = tokio::join!(hello(&client, listening.port), greet(&mut listening));
        assert_eq!(said.unwrap(), heard);
    }
    // An authority on file is what makes it possible at all.
    let source = TlsSource { ca_file: None, ..server.source.clone() };
    assert!(ServerTls::new(source.clone(), ClientCertificates::None, Protocol::Http).is_ok());
    let error = ServerTls::new(source, ClientCertificates::Optional, Protocol::Http).unwrap_err();
    assert_eq!(error.setting, "tls.ca_file");
}
