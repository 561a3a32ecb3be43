//! Callers that speak plaintext to a TLS port: they are told so in their own protocol, then refused.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::tls::server::Protocol;

/// A TLS record of a handshake begins with this.
const HANDSHAKE: u8 = 0x16;
const GOODBYE: Duration = Duration::from_secs(1);
/// HTTP/2: empty SETTINGS, then GOAWAY on stream 0 with last stream 0 and INADEQUATE_SECURITY (RFC 9113, 6.8 and 7).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const INADEQUATE_SECURITY: u8 = 0xc;
const SAID: &[u8] = b"this port speaks TLS";
const HTTP_1: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 37\r\nconnection: close\r\n\r\nthis port speaks TLS: use https://\r\n\r\n";

/// Whether the first byte is none of a TLS handshake. Waits for it.
pub(crate) async fn is_spoken(tcp: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match tcp.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] != HANDSHAKE),
    }
}

/// Says why, and lets the caller read it: to close with bytes unread would throw the answer away.
pub(crate) async fn refuse(tcp: &mut TcpStream, protocol: Protocol) {
    let _ = timeout(GOODBYE, async {
        let mut heard = [0; 1024];
        let count = tcp.read(&mut heard).await?;
        let http_2 = protocol == Protocol::Grpc || heard[..count].starts_with(b"PRI ");
        tcp.write_all(&if http_2 { go_away() } else { HTTP_1.to_vec() }).await?;
        tcp.shutdown().await?;
        while tcp.read(&mut heard).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

fn go_away() -> Vec<u8> {
    let mut bytes = SETTINGS.to_vec();
    let length = u8::try_from(8 + SAID.len()).unwrap_or(u8::MAX);
    bytes.extend([0, 0, length, 7, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, INADEQUATE_SECURITY]);
    bytes.extend(SAID);
    bytes
}
