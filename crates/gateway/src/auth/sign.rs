//! AWS Signature Version 4 on one request, as it is about to be sent.
//!
//! The path must already be encoded as it goes over the wire, each segment once: `:` of a model id as `%3A`, `/` of an
//! ARN as `%2F`. The canonical request encodes it once more, which is the rule for every service but S3; both come from
//! the same URL, so they cannot differ.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use http::{Request, header};

/// Both kinds of backends at AWS are Bedrock's.
const SERVICE: &str = "bedrock";

/// Adds `authorization`, `x-amz-date` and, for temporary credentials, `x-amz-security-token`.
pub(super) fn sign_request<B>(
    request: &mut Request<B>,
    body: &[u8],
    credentials: &Credentials,
    region: &str,
    at: SystemTime,
) -> Result<(), String> {
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(at)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| format!("cannot sign: {error}"))?
        .into();
    // Only what no proxy changes; the host is added from the URL.
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let headers = content_type.into_iter().map(|value| ("content-type", value));
    let url = request.uri().to_string();
    let signable = SignableRequest::new(request.method().as_str(), url, headers, SignableBody::Bytes(body))
        .map_err(|error| format!("cannot sign: {error}"))?;
    let signed = sign(signable, &params).map_err(|error| format!("cannot sign: {error}"))?;
    let (instructions, _) = signed.into_parts();
    instructions.apply_to_request_http1x(request);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(url: &str, token: Option<&str>, body: &[u8]) -> Request<()> {
        let mut request = Request::post(url)
            .header("content-type", "application/json")
            .header("user-agent", "sdk")
            .body(())
            .unwrap();
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", secret, token.map(str::to_owned), None, "test");
        let at: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        sign_request(&mut request, body, &credentials, "us-east-1", at.into()).unwrap();
        request
    }

    /// The expected signatures are botocore's (1.43) for the same requests.
    #[test]
    fn signatures_are_those_of_awss_own_sdk() {
        for (url, token, body, headers, signature) in [
            (
                "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-sonnet-4%3A0/converse",
                None,
                r#"{"messages":[]}"#,
                "content-type;host;x-amz-date",
                "54259dd94c875f80e8a8ecb036ed9ea5bccaf0f1db082e507d7e56351052b6fb",
            ),
            (
                "http://127.0.0.1:8443/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/converse-stream",
                Some("TOKEN+/="),
                "{}",
                "content-type;host;x-amz-date;x-amz-security-token",
                "d7ba0291d3b7534d2a7930ef139b5130786be4649eaaac65ac02e35111ae6e72",
            ),
        ] {
            let request = signed(url, token, body.as_bytes());
            assert_eq!(
                request.headers()["authorization"],
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/bedrock/aws4_request, \
                     SignedHeaders={headers}, Signature={signature}"
                )
                .as_str()
            );
            assert_eq!(request.headers()["x-amz-date"], "20260102T030405Z");
            assert_eq!(
                request.headers().get("x-amz-security-token").map(|value| value.to_str().unwrap()),
                token
            );
            assert_eq!(request.uri(), url, "what is sent is what was signed");
        }
    }

    #[test]
    fn body_and_path_are_part_of_it() {
        let of = |url, body: &[u8]| signed(url, None, body).headers()["authorization"].clone();
        let one = of("https://h/model/a%3A0/converse", b"{}");
        assert_ne!(one, of("https://h/model/a%3A0/converse", b"{} "));
        assert_ne!(one, of("https://h/model/a%3A1/converse", b"{}"));
        assert_eq!(one, of("https://h/model/a%3A0/converse", b"{}"));
    }
}
