//! The format of `~/.aws/credentials`, which secrets of a policy have too: profiles in brackets, `name = value` lines.

use std::{io, path::Path};

use aws_credential_types::Credentials;

use crate::secret::SecretText;

/// Where credentials are from, as their type wants to know.
pub(super) const PROVIDER: &str = "quorate";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A profile of a secret.
pub(super) fn parse_secret(secret: &SecretText, profile: &str) -> Result<Credentials, String> {
    let found = parse(&secret.text, profile).map_err(|error| format!("{}: {error}", secret.place))?;
    found.ok_or_else(|| {
        format!(
            "{} has no profile [{profile}] with aws_access_key_id and aws_secret_access_key; wanted is a credentials file",
            secret.place
        )
    })
}

/// `None`: there is no such file. No such profile is an error.
pub(super) async fn read(path: &Path, profile: &str) -> Result<Option<Credentials>, String> {
    find(path, profile, true).await
}

/// `None`: there is no such file or, where it is not `needed`, no such profile.
pub(super) async fn find(path: &Path, profile: &str, needed: bool) -> Result<Option<Credentials>, String> {
    let place = path.display();
    let text = match read_file(path).await {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {place}: {error}")),
    };
    match parse(&text, profile).map_err(|error| format!("{place}: {error}"))? {
        Some(found) => Ok(Some(found)),
        None if needed => Err(format!("{place} has no credentials in the profile {profile}")),
        None => Ok(None),
    }
}

async fn read_file(path: &Path) -> io::Result<String> {
    let metadata = tokio::fs::metadata(path).await?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is no file of at most a MiB"));
    }
    tokio::fs::read_to_string(path).await
}

/// `None`: no such profile, or no keys in it. Errors never quote a value.
fn parse(text: &str, profile: &str) -> Result<Option<Credentials>, String> {
    let (mut id, mut secret, mut token, mut elsewhere) = (None, None, None, None);
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            inside = name.trim() == profile;
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';']))
        else {
            continue;
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        match name.as_str() {
            "aws_access_key_id" => id = Some(value),
            "aws_secret_access_key" => secret = Some(value),
            "aws_session_token" => token = Some(value),
            "role_arn" | "credential_process" | "sso_session" | "sso_start_url" => elsewhere = Some(name),
            _ => {}
        }
    }
    match (id, secret, elsewhere) {
        (Some(id), Some(secret), _) if !id.is_empty() && !secret.is_empty() => {
            Ok(Some(Credentials::new(id, secret, token.filter(|token| !token.is_empty()), None, PROVIDER)))
        }
        (None, None, Some(name)) => Err(format!(
            "the profile {profile} uses {name}, which is not supported; give it keys, or use a web identity"
        )),
        (None, None, None) => Ok(None),
        _ => Err(format!("the profile {profile} needs both aws_access_key_id and aws_secret_access_key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
# comment
[default]
aws_access_key_id = AKID
aws_secret_access_key=a/b+c=
[ other ]
aws_access_key_id = OTHER
aws_secret_access_key = hush
aws_session_token = TOKEN
region = eu-central-1
[role]
role_arn = arn:aws:iam::1:role/x
[half]
aws_access_key_id = HALF
[empty]
";

    #[test]
    fn profiles() {
        let found = parse(FILE, "default").unwrap().unwrap();
        assert_eq!((found.access_key_id(), found.secret_access_key()), ("AKID", "a/b+c="));
        assert_eq!(found.session_token(), None);
        let other = parse(FILE, "other").unwrap().unwrap();
        assert_eq!((other.access_key_id(), other.session_token()), ("OTHER", Some("TOKEN")));
        assert!(!format!("{other:?}").contains("hush") && !format!("{other:?}").contains("TOKEN"));
        assert!(parse(FILE, "none").unwrap().is_none() && parse(FILE, "empty").unwrap().is_none());
        assert!(parse(FILE, "role").unwrap_err().contains("role_arn"));
        assert!(parse(FILE, "half").unwrap_err().contains("both"));
    }

    #[test]
    fn a_secret_that_is_no_file_of_credentials_is_named_and_not_shown() {
        let secret = SecretText { text: "hush".to_owned(), place: "file f".to_owned() };
        let error = parse_secret(&secret, "default").unwrap_err();
        assert!(error.contains("file f") && !error.contains("hush"), "{error}");
    }
}
